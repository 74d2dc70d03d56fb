"""L2 attacks on a purifier that was trained against L-inf alone: a threat it never saw."""

from dataclasses import dataclass
from functools import partial

from torch import nn

from training.adversary import Attacked
from training.autoattack import VERSION, Settings, attacks_for, autoattack
from training.card import Row, accuracy_row
from training.checks import ball_is_held
from training.recipes import Recipe
from training.trial import Trial
from training.white_box import parts_name

# In [0, 1] pixel units. 2.0 is usual for 28x28 digits, 0.5 for 32x32 colour images.
GREY_RADIUS, COLOUR_RADIUS = 2.0, 0.5


@dataclass(frozen=True)
class Unseen:
    """The same L2 attacks on each model, of the trial's first images.

    Attributes:
        bare: on the classifier alone.
        pipeline: on purifier and classifier together.
    """

    bare: Attacked
    pipeline: Attacked


def unseen_radius(recipe: Recipe, channels: int) -> float:
    """Radius of the L2 attacks: the recipe's, or the usual one for such images."""
    if recipe.unseen_l2 is not None:
        return recipe.unseen_l2
    return GREY_RADIUS if channels == 1 else COLOUR_RADIUS


def attack_unseen(trial: Trial) -> Unseen | None:
    """L2 attacks with full access; None if the headline is L2 itself or the radius is 0."""
    settings = unseen_settings(trial)
    if settings is None:
        return None
    return Unseen(
        _attack(trial, "unseen L2 - classifier alone", trial.networks["classifier"], settings),
        _attack(trial, "unseen L2 - end-to-end", trial.pipeline(), settings),
    )


def unseen_settings(trial: Trial) -> Settings | None:
    """APGD-CE and APGD-T, or what stands in for the latter with few classes; None: no attack."""
    protocol = trial.protocol
    if protocol.unseen_l2 == 0 or protocol.norm == "l2":
        return None
    return Settings(
        epsilon=protocol.unseen_l2,
        norm="l2",
        attacks=("apgd-ce",) if protocol.quick else attacks_for(trial.classes)[:2],
        seed=protocol.seed,
        batch_size=protocol.batch_size,
    )


def unseen_rows(trial: Trial, found: Unseen | None) -> tuple[Row, ...]:
    """The undefended classifier and the whole pipeline under the unseen threat."""
    settings = unseen_settings(trial)
    if found is None or settings is None:
        return ()
    row = partial(
        accuracy_row,
        attack=parts_name(settings),
        versions=VERSION,
        norm="l2",
        epsilon=settings.epsilon,
        seed=settings.seed,
    )
    return (
        row(
            "unseen_l2_bare",
            "Undefended: L2 attack on the classifier",
            found.bare.robust,
            defence="none",
            sees="classifier",
        ),
        row(
            "unseen_l2",
            "Unseen threat, end-to-end: L2 attack on purifier and classifier",
            found.pipeline.robust,
            defence="student",
            sees="everything",
        ),
    )


def _attack(trial: Trial, name: str, model: nn.Module, settings: Settings) -> Attacked:
    """The L2 attacks on one model."""
    images, labels = trial.first(trial.protocol.unseen_n)
    run = partial(
        autoattack, model, images, labels, settings, state=trial.state, progress=trial.progress
    )
    attacked = trial.attack(name, run, model)
    ball_is_held(attacked, images, settings.epsilon, settings.norm)
    return attacked
