"""Single attacks, end-to-end or grey-box, for quick runs that write no card."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial, reduce
from operator import add

import torch
from torch import Tensor, nn

from training.adversary import Attacked, is_correct, pgd_cascade, single_step
from training.autoattack import STANDARD, Settings, attacks_for, autoattack, passes_of
from training.checks import ball_is_held
from training.speed import Passes
from training.trial import Trial
from training.white_box import LOSSES, autoattack_settings, parts_name

NAMES = ("fgsm", "pgd", *STANDARD, "autoattack")
# They ask for scores alone, so that any model will do.
GRADIENT_FREE = frozenset({"square"})


def names_of(text: str, classes: int) -> tuple[str, ...]:
    """The attacks that a comma-separated list names.

    Raises:
        ValueError: one is unknown, or not defined for so few classes.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in NAMES]
    if unknown or not names:
        asked = ", ".join(unknown) or repr(text)
        raise ValueError(f"no attack {asked}; there are {', '.join(NAMES)}")
    targeted = [name for name in names if name in STANDARD and name not in attacks_for(classes)]
    if targeted:
        raise ValueError(f"{', '.join(targeted)} needs 4 classes, the bundle has {classes}")
    return names


def require_gradients(
    names: tuple[str, ...], model: nn.Module, images: Tensor, reason: str
) -> bool:
    """Whether the model is differentiable; if not, `reason` says why.

    Raises:
        ValueError: it is not, and an attack needs that it is.
    """
    with torch.enable_grad():
        differentiable = bool(model(images[:1].clone().requires_grad_(True)).requires_grad)
    wanting = [name for name in names if name not in GRADIENT_FREE]
    if wanting and not differentiable:
        raise ValueError(
            f"{', '.join(wanting)} needs gradients, but {reason}; "
            f"without them: {', '.join(sorted(GRADIENT_FREE))}"
        )
    return differentiable


def victim_of(trial: Trial, *, grey_box: bool) -> nn.Module:
    """What is attacked: the classifier alone, or purifier and classifier together."""
    return trial.networks["classifier"] if grey_box else trial.pipeline()


def title_of(name: str, trial: Trial, *, grey_box: bool = False) -> str:
    """The attack with its settings, for people."""
    protocol = trial.protocol
    if grey_box:
        return f"{title_of(name, trial)}, on the classifier alone, then purified"
    if name == "fgsm":
        return "FGSM, cross-entropy loss"
    if name == "pgd":
        losses = " and ".join(LOSSES)
        return f"PGD-{protocol.pgd_steps}, {protocol.pgd_restarts} random starts, {losses} loss"
    return parts_name(_settings(name, trial))


def passes(name: str, trial: Trial) -> Passes:
    """What the attack takes for each image that withstands it."""
    protocol = trial.protocol
    if name == "fgsm":
        return Passes(gradients=1, forwards=2)
    if name == "pgd":
        return Passes(gradients=len(LOSSES) * protocol.pgd_restarts * protocol.pgd_steps)
    settings = _settings(name, trial)
    parts = (passes_of(part, settings.queries, trial.classes) for part in settings.attacks)
    return reduce(add, parts)


def attempt(name: str, trial: Trial, *, grey_box: bool = False) -> Attacked:
    """One attack, kept in the trial's state, and what purifier and classifier make of its images.

    Grey-box the attack is on the classifier alone.
    """
    protocol, victim = trial.protocol, victim_of(trial, grey_box=grey_box)
    run = partial(_attack_of(name, trial), victim, trial.images, trial.labels)
    attacked = trial.attack(f"{'classifier' if grey_box else 'end-to-end'} - {name}", run, victim)
    ball_is_held(attacked, trial.images, protocol.epsilon, protocol.norm)
    # Counted in one way, whatever the batches of the attack: a recount finds the same.
    return Attacked(attacked.images, is_correct(trial.pipeline(), attacked.images, trial.labels))


def _attack_of(name: str, trial: Trial) -> Callable[[nn.Module, Tensor, Tensor], Attacked]:
    """The attack with the trial's settings, of model, images and labels."""
    protocol = trial.protocol
    if name not in ("fgsm", "pgd"):
        settings = _settings(name, trial)
        return partial(autoattack, settings=settings, state=trial.state, progress=trial.progress)
    ball = partial(
        single_step if name == "fgsm" else pgd_cascade,
        epsilon=protocol.epsilon,
        norm=protocol.norm,
        batch_size=protocol.batch_size,
    )
    if name == "fgsm":
        return ball
    return partial(
        ball,
        losses=tuple(LOSSES.values()),
        steps=protocol.pgd_steps,
        restarts=protocol.pgd_restarts,
        seed=protocol.seed,
    )


def worst_of(attacked: list[Attacked]) -> Attacked:
    """Image by image the first attack that succeeded, or the last one."""
    images, robust = attacked[0].images, attacked[0].robust
    for later in attacked[1:]:
        images = torch.where(robust[:, None, None, None], later.images, images)
        robust = robust & later.robust
    return Attacked(images, robust)


def _settings(name: str, trial: Trial) -> Settings:
    """AutoAttack's settings with one of its parts, or with all of them."""
    settings = autoattack_settings(trial)
    return settings if name == "autoattack" else replace(settings, attacks=(name,))
