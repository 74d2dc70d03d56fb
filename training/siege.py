"""The Square attack on a running service, by its scores alone and within a budget of queries.

The attack's code is its authors' (`pyautoattack`). Behind its model stands the service: every image
is rounded to 8 bits before it is sent, and is judged by the answer to what was sent. So nothing is
counted that a PNG would not carry.

Source:
    Andriushchenko, Croce, Flammarion, Hein 2020, "Square Attack: a query-efficient black-box
    adversarial attack via random search".
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from pyautoattack.square import SquareAttack
from torch import Tensor

from training.attacks import Norm
from training.autoattack import NORMS
from training.client import OutOfTime, ServiceFailure
from training.oracle import Answer, Oracle, Pixels

LEVELS = 255
_PROGRESS_S = 5.0
_L2_SIDE = 5  # it starts from five tiles in each direction
# Of a move that rounding could take out of the ball, the largest of these shares that stays inside.
_SHARES = (0.9, 0.92, 0.94, 0.96, 0.98, 0.99, 1.0)


@dataclass(frozen=True)
class Ball:
    """The images that an attack may send instead of a clean one.

    Attributes:
        norm: of the ball.
        epsilon: radius in [0, 1] pixel units; in L-inf a whole number of 8-bit levels.
    """

    norm: Norm
    epsilon: float

    @classmethod
    def within(cls, norm: Norm, epsilon: float) -> "Ball":
        """The largest ball within epsilon that 8-bit images can use.

        Raises:
            ValueError: there is none.
        """
        levels = epsilon * LEVELS
        if not 1 - 1e-9 <= levels <= LEVELS * (1 if norm == "linf" else 1024):
            raise ValueError(
                f"epsilon {epsilon:g} cannot be used: images are sent with 8 bits, so that it must "
                f"be at least 1/{LEVELS}" + (" and at most 1" if norm == "linf" else "")
            )
        return cls(norm, int(levels + 1e-9) / LEVELS if norm == "linf" else epsilon)

    def on_levels(self, images: Tensor, clean: Pixels) -> Pixels:
        """The images, float in [0, 1] within the ball, in 8 bits and still within it."""
        start = clean.astype(np.float64)
        moves = images.numpy().astype(np.float64) * LEVELS - start
        if self.norm == "linf":
            rounded = np.rint(moves)  # the ball's walls are levels: nothing crosses them
        else:
            rounded = np.trunc(moves)
            for share in _SHARES:
                candidate = np.rint(share * moves)
                fits = _lengths(candidate) <= self.epsilon * LEVELS
                rounded[fits] = candidate[fits]
        assert self.holds(rounded).all()
        return (start + rounded).astype(np.uint8)

    def holds(self, moves: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Which moves (N, C, H, W), in levels, stay within the ball, (N,)."""
        if self.norm == "l2":
            return _lengths(moves) <= self.epsilon * LEVELS * (1 + 1e-6)
        largest: npt.NDArray[np.float64] = np.abs(moves).reshape(len(moves), -1).max(axis=1)
        return largest <= self.epsilon * LEVELS + 1e-6


@dataclass
class Outcome:
    """What became of the images.

    Attributes:
        clean: the images as they were, (N, C, H, W).
        sent: those that broke the classification as they were sent; of images that stand the
            attempt that came closest, of images that were wrong at first the clean image.
        labels: right labels.
        clean_right: (N,) bool, right without attack.
        robust: (N,) bool, right at first and never broken.
        queries: (N,), how often the image was sent and answered for, the clean one included.
        ended_early: why the attack ended before its budget did, None if it did not.
    """

    clean: Pixels
    sent: Pixels
    labels: tuple[str, ...]
    clean_right: npt.NDArray[np.bool_]
    robust: npt.NDArray[np.bool_]
    queries: npt.NDArray[np.int64]
    ended_early: str | None = None


@dataclass
class _Target:
    """The service as the attack's model, which also keeps the books.

    Attributes:
        standing: rows of the outcome that the attack still asks about, in its order.
        margins: lowest margin of each row so far.
    """

    oracle: Oracle
    outcome: Outcome
    ball: Ball
    standing: npt.NDArray[np.int64]
    report: Callable[[str], None]
    margins: npt.NDArray[np.float64] = field(init=False)
    reported_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        """No image has been asked about."""
        self.margins = np.full(len(self.outcome.labels), np.inf)

    def __call__(self, images: Tensor) -> Tensor:
        """Scores (M, K) of the images that stand; those that fall are asked about no more."""
        rows = self.standing
        scores = torch.zeros(len(images), len(self.oracle.labels))
        if len(images) == 0:
            return scores
        assert len(images) == len(rows)
        levels = self.ball.on_levels(images, self.outcome.clean[rows])
        for part, answers in self.oracle.ask(levels):
            scores[part] = scores_of(answers, self.oracle.labels)
            for row, sent, answer in zip(rows[part], levels[part], answers, strict=True):
                self._enter(row, sent, answer)
        self.standing = rows[self.outcome.robust[rows]]
        self._say()
        return scores

    def _enter(self, row: int, sent: Pixels, answer: Answer) -> None:
        """Note one answer."""
        self.outcome.queries[row] += 1
        right = answer.label == self.outcome.labels[row]
        margin = answer.best[0] - answer.best[1] if right else -1.0
        if margin < self.margins[row]:
            self.margins[row] = margin
            self.outcome.sent[row] = sent
        self.outcome.robust[row] = right  # last: what is interrupted before has its image

    def _say(self) -> None:
        """A line of progress, now and then."""
        if time.monotonic() > self.reported_s + _PROGRESS_S:
            self.reported_s = time.monotonic()
            asked = int(self.outcome.queries.sum())
            self.report(f"  standing after {asked:,} queries: {len(self.standing)}")


def scores_of(answers: tuple[Answer, ...], labels: tuple[str, ...]) -> Tensor:
    """Logarithms of the probabilities, (N, K): logits up to a constant that margins do not see.

    All classes but the best count as probable as the second: more is not needed for a margin while
    an image stands. Of two that are equal the label is the best, as the service has it.
    """
    best = torch.tensor([answer.best for answer in answers], dtype=torch.float64)
    logs = best.clamp_min(5e-324).log().to(torch.float32)  # (N, 2)
    below = torch.nextafter(logs[:, 0], torch.tensor(-torch.inf))
    scores = torch.minimum(logs[:, 1], below)[:, None].repeat(1, len(labels))
    places = {label: place for place, label in enumerate(labels)}
    unknown = {answer.label for answer in answers} - places.keys()
    if unknown:
        raise ServiceFailure(f"the service answers labels that it does not list: {sorted(unknown)}")
    columns = torch.tensor([places[answer.label] for answer in answers])
    scores[torch.arange(len(answers)), columns] = logs[:, 0]
    return scores


def besiege(
    oracle: Oracle,
    clean: Pixels,
    labels: tuple[str, ...],
    *,
    ball: Ball,
    queries: int,
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> Outcome:
    """Attack the service with each image.

    Args:
        oracle: the service.
        clean: images (N, C, H, W).
        labels: their right labels.
        ball: how far an image may be changed.
        queries: of each image, at most, the clean one included.
        seed: of the attack.
        report: takes a line of progress.

    Raises:
        ServiceFailure, OutOfTime: before all clean images were answered; later failures, and
            Ctrl-C, end the attack early, and the outcome says so.
    """
    right = np.zeros(len(clean), np.bool_)
    for rows, answers in oracle.ask(clean):
        right[rows] = [a.label == label for a, label in zip(answers, labels[rows], strict=True)]
    outcome = Outcome(
        clean, clean.copy(), labels, right, right.copy(), np.ones(len(clean), np.int64)
    )
    if ball.norm == "l2" and min(clean.shape[2:]) < _L2_SIDE:
        raise ValueError(f"the L2 attack needs images of at least {_L2_SIDE}x{_L2_SIDE} pixels")
    standing = np.flatnonzero(right)
    target = _Target(oracle, outcome, ball, standing, report)
    attack = SquareAttack(
        target,
        norm=NORMS[ball.norm],
        eps=ball.epsilon,
        # It asks once before it begins to count, and the clean image was asked about above.
        n_queries=queries - 2,
        device=torch.device("cpu"),
    )
    places = {label: place for place, label in enumerate(oracle.labels)}
    images = torch.from_numpy(clean[standing].astype(np.float32) / LEVELS)
    attack.init_hyperparam(images)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # Not `perturb`: it would ask about clean and last images once more.
            if queries > 1 and len(standing):
                attack.attack_single_run(
                    images, torch.tensor([places[labels[row]] for row in standing])
                )
    except (ServiceFailure, OutOfTime, KeyboardInterrupt) as failure:
        outcome.ended_early = str(failure) or "it was interrupted"
    return outcome


def _lengths(moves: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Euclidean lengths (N,) of moves (N, C, H, W)."""
    lengths: npt.NDArray[np.float64] = np.sqrt((moves**2).sum(axis=(1, 2, 3)))
    return lengths
