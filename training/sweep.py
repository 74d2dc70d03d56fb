"""Accuracy over epsilon, up to where an attack may paint any image."""

import math

from torch import Tensor, nn

from training.attacks import Norm
from training.autoattack import VERSION
from training.card import Sweep, SweepPoint
from training.trial import OWN_VERSION, Trial
from training.white_box import brief_attack, brief_name


def epsilon_grid(epsilon: float, norm: Norm, image_shape: tuple[int, ...]) -> tuple[float, ...]:
    """Epsilons of the sweep: closely around the headline, then up to where any image is allowed."""
    largest = 1.0 if norm == "linf" else math.sqrt(math.prod(image_shape))
    close = [epsilon * step / 6 for step in (0, 1, 2, 3, 4, 5, 6, 7, 8, 10)]
    far = [largest * share for share in (0.1, 0.25, 0.5, 0.75, 1.0)]
    grid = [e for e in close if e < largest] + [e for e in far if e > close[-1] * 1.01]
    return tuple(round(e, 6) for e in sorted({*grid, largest}))


def grid_of(trial: Trial) -> tuple[float, ...]:
    """The trial's grid; quick ones have three points."""
    protocol = trial.protocol
    grid = epsilon_grid(protocol.epsilon, protocol.norm, tuple(trial.images.shape[1:]))
    return (0.0, protocol.epsilon, grid[-1]) if protocol.quick else grid


def sweep_of(trial: Trial) -> Sweep:
    """The sweep, for the classifier alone and for the whole pipeline."""
    protocol = trial.protocol
    images, labels = trial.first(protocol.sweep_n)
    grid = grid_of(trial)
    bare, pipeline = trial.networks["classifier"], trial.pipeline()
    points = tuple(
        SweepPoint(
            epsilon=epsilon,
            bare=_accuracy(trial, "bare", bare, images, labels, epsilon),
            purified=_accuracy(trial, "purified", pipeline, images, labels, epsilon),
        )
        for epsilon in grid
    )
    return Sweep(
        attack=brief_name(trial),
        versions=f"{VERSION}; {OWN_VERSION}",
        norm=protocol.norm,
        n=len(images),
        seed=protocol.seed,
        points=points,
    )


def _accuracy(
    trial: Trial, name: str, model: nn.Module, images: Tensor, labels: Tensor, epsilon: float
) -> float:
    """Accuracy of one model at one epsilon."""
    attacked = brief_attack(trial, f"sweep - {name} at {epsilon:g}", model, images, labels, epsilon)
    return float(attacked.robust.double().mean())
