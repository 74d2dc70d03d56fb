"""AutoAttack by its authors (`pyautoattack`): seeded, resumable, with a time to completion.

Source:
    Croce, Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks".
"""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version

import numpy as np
import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

from training.adversary import Attacked, Progress, is_correct
from training.attacks import Norm
from training.speed import Passes, duration, measured
from training.state import Arrays, State, digest_of

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
# The targeted attacks need four classes for their loss.
FEW_CLASSES = ("apgd-ce", "fab", "square")
QUERIES = 5000
VERSION = f"pyautoattack {version('pyautoattack')}"

# As pyautoattack calls them.
NORMS: dict[Norm, str] = {"linf": "Linf", "l2": "L2"}


@dataclass(frozen=True)
class Settings:
    """What AutoAttack is run with.

    Attributes:
        epsilon: radius, in [0, 1] pixel units.
        norm: of the ball.
        attacks: run in this order, each on the images that still stand; the standard version.
        queries: of Square, for each image.
        seed: of every attack.
        batch_size: images attacked at once, and saved at once.
    """

    epsilon: float
    norm: Norm = "linf"
    attacks: tuple[str, ...] = STANDARD
    queries: int = QUERIES
    seed: int = 0
    batch_size: int = 250


def passes_of(attack: str, queries: int, classes: int) -> Passes:
    """What one of the attacks takes for each image, if it does not succeed."""
    targets = min(9, classes - 1)
    return {
        "apgd-ce": Passes(gradients=101),
        "apgd-t": Passes(gradients=targets * 101),
        "fab-t": Passes(gradients=targets * 100, forwards=targets * 100),
        "fab": Passes(gradients=5 * 200, forwards=5 * 100),
        "square": Passes(forwards=queries),
    }[attack]


def attacks_for(classes: int) -> tuple[str, ...]:
    """The standard attacks, or those that are defined with fewer than four classes."""
    return STANDARD if classes >= 4 else FEW_CLASSES


def autoattack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    settings: Settings,
    *,
    state: State | None = None,
    progress: Progress = print,
) -> Attacked:
    """Run AutoAttack and return the adversarial images and which images stand.

    Args:
        model: images in [0, 1] to logits, in eval mode, normalising inside.
        images: (N, C, H, W) in [0, 1].
        labels: (N,).
        settings: epsilon, norm, seed.
        state: where each batch is kept; a second call with the same model, images and settings
            continues there.
        progress: takes one line for each batch.
    """
    key = digest_of(model, images, labels, repr(settings), VERSION)
    kept = (state or State(None)).below(f"autoattack-{key}")
    adversarial = images.clone()
    robust = is_correct(model, images, labels)
    warnings: set[str] = set()
    clock = _Clock(model, images, labels, settings, int(robust.sum()))
    progress(f"AutoAttack: {int(robust.sum())} images, at most {duration(clock.total_s)}")
    for attack in settings.attacks:
        batches = torch.split(robust.nonzero().flatten(), settings.batch_size)
        waiting = int(robust.sum())
        for index, batch in enumerate(batches[: -(-waiting // settings.batch_size)]):
            name = f"{attack}-{index}"
            resumed = kept.has(name)
            started = time.monotonic()
            found = kept.kept(
                name, partial(_run, model, images[batch], labels[batch], attack, settings)
            )
            adversarial[batch] = torch.from_numpy(found["images"]).to(images.device)
            robust[batch] = is_correct(model, adversarial[batch], labels[batch])
            warnings.update(str(message) for message in found["warnings"])
            waiting -= len(batch)
            clock.count(attack, len(batch), 0.0 if resumed else time.monotonic() - started)
            progress(
                f"  {attack} batch {index + 1}/{len(batches)}: "
                f"{int(robust.sum())}/{len(images)} stand, "
                f"at most {clock.left_s(attack, waiting, int(robust.sum())) / 60:.1f} min left"
            )
    return Attacked(adversarial, robust, tuple(sorted(warnings)))


def _run(
    model: nn.Module, images: Tensor, labels: Tensor, attack: str, settings: Settings
) -> Arrays:
    """One attack on one batch."""
    adversary = AutoAttack(
        model,
        norm=NORMS[settings.norm],
        eps=settings.epsilon,
        seed=settings.seed,
        version="standard" if attack in STANDARD else "custom",
        attacks=None if attack in STANDARD else [attack],
        device=images.device,
    )
    with torch.no_grad():
        targets = min(9, model(images[:1]).shape[1] - 1)
    adversary.apgd_targeted.n_target_classes = targets
    adversary.fab.n_target_classes = targets
    adversary.square.n_queries = settings.queries
    adversary.attacks_to_run = [attack]
    with _captured_warnings() as messages, _untraced(), torch.random.fork_rng():
        adversarial, _ = adversary.run_standard_evaluation(images, labels, batch_size=len(images))
    return {"images": adversarial.cpu().numpy(), "warnings": np.array(messages, dtype=np.str_)}


@contextmanager
def _captured_warnings() -> Iterator[list[str]]:
    """The warnings that AutoAttack's own checks log meanwhile."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("auto-attack")
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


@contextmanager
def _untraced() -> Iterator[None]:
    """Run without a tracer and bring it back: AutoAttack sets its own and then none at all."""
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)


@dataclass
class _Clock:
    """Time left, from a measured forward and backward pass and corrected as batches finish."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    settings: Settings
    standing: int
    seconds: dict[str, float] = field(init=False)
    spent_s: float = 0.0
    expected_s: float = 0.0

    def __post_init__(self) -> None:
        """Measure one batch."""
        batch, labels = (t[: self.settings.batch_size] for t in (self.images, self.labels))
        attacks = self.settings.attacks
        # Square asks for scores only, and may be all that the model can answer.
        speed = measured(self.model, batch, labels, differentiable=attacks != ("square",))
        with torch.no_grad():
            classes = self.model(batch[:1]).shape[1]
        self.seconds = {
            name: speed.seconds(passes_of(name, self.settings.queries, classes)) for name in attacks
        }
        self.total_s = self.left_s("", 0, self.standing)

    def count(self, attack: str, images: int, spent_s: float) -> None:
        """Take in a finished batch; resumed ones (0 s) say nothing about speed."""
        if spent_s > 0:
            self.spent_s += spent_s
            self.expected_s += images * self.seconds[attack]

    def left_s(self, attack: str, in_attack: int, standing: int) -> float:
        """Seconds left if no further image falls."""
        names = self.settings.attacks
        later = names[names.index(attack) + 1 :] if attack else names
        expected = sum(self.seconds[name] for name in later) * standing
        expected += in_attack * self.seconds[attack] if attack else 0.0
        return expected * (self.spent_s / self.expected_s if self.expected_s else 1.0)
