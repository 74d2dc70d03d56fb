"""The attacks on purifier and classifier together, and what they leave standing."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from training.adversary import Attacked, is_correct, pgd_cascade
from training.attacks import cross_entropy_loss, margin_loss
from training.autoattack import Settings, attacks_for, autoattack
from training.checks import ball_is_held
from training.trial import Trial

LOSSES = {"cross-entropy": cross_entropy_loss, "margin": margin_loss}
_TITLES = {"apgd-ce": "APGD-CE", "apgd-t": "APGD-T", "fab-t": "FAB-T", "fab": "FAB"}


@dataclass(frozen=True)
class WhiteBox:
    """Every attack on the whole pipeline.

    Attributes:
        gradient: AutoAttack's gradient-based attacks.
        square: Square alone, on all images.
        pgd: PGD by loss.
        transfer: attack on the surrogate pipeline, shown to ours; None without a surrogate.
    """

    gradient: Attacked
    square: Attacked
    pgd: dict[str, Attacked]
    transfer: Attacked | None

    @property
    def autoattack(self) -> Attacked:
        """AutoAttack as a whole: an image stands if all of its four attacks failed."""
        stands = self.gradient.robust[:, None, None, None]
        images = torch.where(stands, self.square.images, self.gradient.images)
        return Attacked(images, self.gradient.robust & self.square.robust)

    @property
    def worst(self) -> Tensor:
        """(N,) bool: no attack at all succeeded."""
        worst = self.autoattack.robust.clone()
        for attacked in (*self.pgd.values(), *([self.transfer] if self.transfer else [])):
            worst &= attacked.robust
        return worst


def autoattack_settings(trial: Trial) -> Settings:
    """AutoAttack as the protocol runs it; quick runs keep APGD-CE and a short Square."""
    protocol = trial.protocol
    attacks = ("apgd-ce", "square") if protocol.quick else attacks_for(trial.classes)
    return Settings(
        epsilon=protocol.epsilon,
        norm=protocol.norm,
        attacks=attacks,
        queries=protocol.queries,
        seed=protocol.seed,
        batch_size=protocol.batch_size,
    )


def attack_name(settings: Settings) -> str:
    """AutoAttack with its parts, for people."""
    return f"AutoAttack ({parts_name(settings)})"


def parts_name(settings: Settings) -> str:
    """Some of AutoAttack's parts, for people."""
    parts = [_TITLES.get(name, f"Square {settings.queries:,} queries") for name in settings.attacks]
    return ", ".join(parts)


def attack_classifier(trial: Trial) -> Attacked:
    """AutoAttack on the classifier alone."""
    return _autoattack(trial, "classifier alone - AutoAttack", trial.networks["classifier"])


def attack_pipeline(trial: Trial) -> WhiteBox:
    """Every attack on purifier and classifier together.

    Square runs on all images rather than on those that the other attacks left, which gives its own
    row and AutoAttack's result in one run.
    """
    names = autoattack_settings(trial).attacks
    pipeline = trial.pipeline()
    gradient = _autoattack(trial, "end-to-end - AutoAttack gradients", pipeline, names[:-1])
    square = _autoattack(trial, "end-to-end - Square", pipeline, names[-1:])
    pgd = {name: pgd_attack(trial, name) for name in LOSSES}
    return WhiteBox(gradient, square, pgd, transfer_attack(trial))


def pgd_attack(trial: Trial, loss: str) -> Attacked:
    """PGD with restarts through the whole pipeline."""
    protocol = trial.protocol

    pipeline = trial.pipeline()

    def run() -> Attacked:
        return pgd_cascade(
            pipeline,
            trial.images,
            trial.labels,
            epsilon=protocol.epsilon,
            losses=(LOSSES[loss],),
            steps=protocol.pgd_steps,
            restarts=protocol.pgd_restarts,
            norm=protocol.norm,
            seed=protocol.seed,
            batch_size=protocol.batch_size,
        )

    attacked = trial.attack(f"end-to-end - PGD {loss}", run, pipeline)
    ball_is_held(attacked, trial.images, protocol.epsilon, protocol.norm)
    return attacked


def transfer_attack(trial: Trial) -> Attacked | None:
    """PGD on the surrogate pipeline, judged by ours; None if there is no surrogate.

    Every image that ours gets right is attacked, also those that the surrogate never knew.
    """
    protocol = trial.protocol
    if not {"surrogate_purifier", "surrogate_classifier"} <= trial.networks.keys():
        return None

    pipeline = trial.pipeline()
    surrogate = trial.pipeline("surrogate_purifier", "surrogate_classifier")

    def run() -> Attacked:
        return pgd_cascade(
            surrogate,
            trial.images,
            trial.labels,
            epsilon=protocol.epsilon,
            losses=tuple(LOSSES.values()),
            steps=protocol.pgd_steps,
            norm=protocol.norm,
            seed=protocol.seed,
            batch_size=protocol.batch_size,
            judge=pipeline,
        )

    # Not the name of before: then some images were never attacked.
    return trial.attack("transfer from a surrogate", run, pipeline, surrogate)


def brief_attack(
    trial: Trial, name: str, model: nn.Module, images: Tensor, labels: Tensor, epsilon: float
) -> Attacked:
    """PGD on the margin and then APGD-CE: most of AutoAttack's strength at a tenth of its cost.

    PGD alone would not do: with a fixed step it leaves far more images standing than APGD. But it
    comes first: it is shorter, and APGD takes all its steps for images that have fallen, too.
    """
    protocol = trial.protocol
    settings = replace(autoattack_settings(trial), epsilon=epsilon, attacks=("apgd-ce",))

    def run() -> Attacked:
        if epsilon == 0:
            return Attacked(images, is_correct(model, images, labels))
        found = pgd_cascade(
            model,
            images,
            labels,
            epsilon=epsilon,
            losses=(margin_loss,),
            steps=protocol.brief_steps,
            norm=protocol.norm,
            seed=protocol.seed,
            batch_size=protocol.batch_size,
        )
        standing = found.robust.nonzero().flatten()
        if len(standing) == 0:
            return found
        last = autoattack(
            model,
            images[standing],
            labels[standing],
            settings,
            state=trial.state,
            progress=_silent,
        )
        found.images[standing], found.robust[standing] = last.images, last.robust
        return replace(found, warnings=last.warnings)

    attacked = trial.attack(name, run, model)
    ball_is_held(attacked, images, epsilon, protocol.norm)
    return attacked


def brief_name(trial: Trial) -> str:
    """`brief_attack`, for people."""
    return f"APGD-CE and PGD-{trial.protocol.brief_steps} with margin loss, worst of both"


def _silent(line: str) -> None:
    """Say nothing: these attacks are short, and there are dozens of them."""


def _autoattack(
    trial: Trial, name: str, model: nn.Module, attacks: tuple[str, ...] | None = None
) -> Attacked:
    """AutoAttack, or some of its parts, on one of the trial's models."""
    settings = autoattack_settings(trial)
    if attacks is not None:
        settings = replace(settings, attacks=attacks)

    def run() -> Attacked:
        return autoattack(
            model,
            trial.images,
            trial.labels,
            settings,
            state=trial.state,
            progress=trial.progress,
        )

    attacked = trial.attack(name, run, model)
    ball_is_held(attacked, trial.images, settings.epsilon, settings.norm)
    return attacked
