"""Accuracy over the attack's number of steps.

A defence that hides its gradients survives one step and looks better the fewer steps are taken; one
that holds loses a little more with every step and then no more.
"""

from collections.abc import Callable
from functools import partial
from operator import attrgetter

from torch import Tensor, nn

from training.adversary import STEP_SHARES, pgd_cascade, single_step
from training.attacks import cross_entropy_loss
from training.card import Check, Steps, StepsPoint
from training.checks import ball_is_held
from training.trial import OWN_VERSION, Trial

# Of the images, which are few, that more steps may leave standing without meaning anything.
NOISE = 0.02
STEPS_BARE = "steps_bare"  # key of the check of the classifier alone


def steps_of(trial: Trial, autoattack_bare: Tensor, autoattack_purified: Tensor) -> Steps:
    """One-step and ever longer attacks, on the classifier alone and on the whole pipeline.

    Args:
        trial: what is attacked.
        autoattack_bare: (N,) bool, the trial's images that stand after AutoAttack on the
            classifier alone.
        autoattack_purified: the same, on the whole pipeline.
    """
    protocol = trial.protocol
    bare, pipeline = trial.networks["classifier"], trial.pipeline()
    points = tuple(
        StepsPoint(
            attack=_title(count),
            steps=count,
            bare=_accuracy(trial, "classifier alone", bare, count),
            purified=_accuracy(trial, "end-to-end", pipeline, count),
        )
        for count in (1, *protocol.step_counts)
    )
    return Steps(
        attack=f"cross-entropy loss, steps of {STEP_SHARES[0]:g} epsilon, one random start",
        versions=OWN_VERSION,
        norm=protocol.norm,
        epsilon=protocol.epsilon,
        n=len(trial.first(protocol.steps_n)[0]),
        seed=protocol.seed,
        points=points,
        autoattack_bare=float(autoattack_bare[: protocol.steps_n].double().mean()),
        autoattack_purified=float(autoattack_purified[: protocol.steps_n].double().mean()),
    )


def steps_checks(steps: Steps, *, resists: bool) -> tuple[Check, ...]:
    """Whether the longest attack is, but for noise, the strongest of the table.

    Args:
        steps: the table.
        resists: whether the classifier alone withstands attacks, and has to show it here too.
    """
    last = steps.points[-1]

    def check(key: str, of: str, accuracy: Callable[[StepsPoint], float]) -> Check:
        best = min(steps.points, key=accuracy)
        return Check(
            key=key,
            passed=accuracy(last) - accuracy(best) <= NOISE,
            finding=f"{last.attack}{of} leaves {accuracy(last):.1%} of {steps.n}, the strongest "
            f"with no more steps ({best.attack}) leaves {accuracy(best):.1%}",
        )

    checks = [check("steps", "", attrgetter("purified"))]
    if resists:
        checks.append(check(STEPS_BARE, " on the classifier alone", attrgetter("bare")))
    return tuple(checks)


def _title(count: int) -> str:
    """The attack with so many steps, for people."""
    return "FGSM" if count == 1 else f"PGD-{count}"


def _accuracy(trial: Trial, name: str, model: nn.Module, count: int) -> float:
    """Accuracy of one model after so many steps; one step is FGSM from the image itself."""
    protocol = trial.protocol
    images, labels = trial.first(protocol.steps_n)

    attack = (
        single_step
        if count == 1
        else partial(pgd_cascade, losses=(cross_entropy_loss,), steps=count, seed=protocol.seed)
    )
    run = partial(
        attack,
        model,
        images,
        labels,
        epsilon=protocol.epsilon,
        norm=protocol.norm,
        batch_size=protocol.batch_size,
    )
    attacked = trial.attack(f"{_title(count)} - {name}", run, model)
    ball_is_held(attacked, images, protocol.epsilon, protocol.norm)
    return float(attacked.robust.double().mean())
