"""How long an attack takes: the passes that it needs, times what one pass was measured to take."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from training.adversary import is_correct
from training.attacks import input_gradient, margin_loss


@dataclass(frozen=True)
class Passes:
    """Passes of one image through a model, for all that an attack does."""

    gradients: float = 0.0
    forwards: float = 0.0

    def __add__(self, other: "Passes") -> "Passes":
        """Of two attacks, one after the other."""
        return Passes(self.gradients + other.gradients, self.forwards + other.forwards)


@dataclass(frozen=True)
class Speed:
    """Seconds that one image takes, in batches: forward, and forward and backward."""

    forward_s: float
    gradient_s: float

    def seconds(self, passes: Passes) -> float:
        """For one image."""
        return passes.gradients * self.gradient_s + passes.forwards * self.forward_s


def measured(
    model: nn.Module, images: Tensor, labels: Tensor, *, differentiable: bool = True
) -> Speed:
    """The model's speed over the given batch; one without gradients has 0 for theirs."""

    def per_image(run: Callable[[], object]) -> float:
        """The faster of two: the first pass also sets up, and others use the machine too."""
        took = []
        for _ in range(2):
            started = time.monotonic()
            run()
            took.append(time.monotonic() - started)
        return min(took) / max(1, len(images))

    forward_s = per_image(lambda: is_correct(model, images, labels))
    if not differentiable:
        return Speed(forward_s, 0.0)
    return Speed(forward_s, per_image(lambda: input_gradient(model, images, labels, margin_loss)))


def duration(seconds: float) -> str:
    """Seconds for people, rounded up to what matters."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
