"""The purifier and the classifier, one after the other: on the host, or staying on a device.

Both ways give the same results. On a device the purified images stay where they were computed, and
batches are padded to a few sizes, because cuDNN looks for its kernels anew for every size it meets.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from app.adapter import AdaptedClassifier
from app.sessions import CPU, Floats, Session
from app.stop import Stop

Classifier = Session | AdaptedClassifier


@dataclass(frozen=True, slots=True, eq=False)
class Purification:
    """What came of a batch of N images.

    Attributes:
        images: (N, C, H, W); None if not wanted.
        logits: (M, K) of the M images that were to be classified; None if there were none.
        classify_s: None if nothing was classified.
    """

    images: Floats | None
    logits: Floats | None
    purify_s: float
    classify_s: float | None


class Graphs(Protocol):
    """A purifier and a classifier on one device.

    Attributes:
        provider: what both run on, as onnxruntime names it.
    """

    provider: str

    def batch_sizes(self, largest: int) -> Sequence[int]:
        """The sizes to run once, before batches of up to `largest` images are met."""

    def purify(
        self, images: Floats, classified: Sequence[int], *, keep: bool, stop: Stop
    ) -> Purification:
        """Purify every image, and classify some of them afterwards.

        Args:
            images: (N, C, H, W).
            classified: the rows whose logits are wanted.
            keep: whether the purified images themselves are wanted.
            stop: ends the computation early, with an exception.
        """

    def classify(self, images: Floats, stop: Stop) -> Floats:
        """The logits (N, K) of images (N, C, H, W)."""

    def close(self) -> None:
        """Free both graphs; they cannot be run any more."""


class HostGraphs:
    """Graphs that take and give arrays: on the CPU there is nothing to move, and none is padded."""

    def __init__(self, purifier: Session, classifier: Classifier) -> None:
        self._purifier = purifier
        self._classifier = classifier
        self.provider = purifier.provider

    def batch_sizes(self, largest: int) -> Sequence[int]:
        """The powers of two below the largest, and itself: a first run of others costs little."""
        return sorted({min(bucket(size), largest) for size in range(1, largest + 1)})

    def purify(
        self, images: Floats, classified: Sequence[int], *, keep: bool, stop: Stop
    ) -> Purification:
        """See `Graphs.purify`."""
        started = time.perf_counter()
        purified = self._purifier.run(images, stop)
        purify_s = time.perf_counter() - started
        logits, classify_s = None, None
        if classified:
            started = time.perf_counter()
            logits = self._classifier.run(rows_of(purified, classified), stop)
            classify_s = time.perf_counter() - started
        return Purification(purified if keep else None, logits, purify_s, classify_s)

    def classify(self, images: Floats, stop: Stop) -> Floats:
        """See `Graphs.classify`."""
        return self._classifier.run(images, stop)

    def close(self) -> None:
        """See `Graphs.close`."""
        self._purifier.close()
        self._classifier.close()


class DeviceGraphs:
    """Graphs whose tensors are bound to a device; only what is wanted comes back from it.

    The whole padded batch is classified where any of it is: to pick rows on the device would cost
    more than they do.

    Args:
        purifier: on any device; on the CPU this works as well, for the tests.
        classifier: on the same device.
    """

    def __init__(self, purifier: Session, classifier: Classifier) -> None:
        self._purifier = purifier
        self._classifier = classifier
        self.provider = purifier.provider

    def batch_sizes(self, largest: int) -> Sequence[int]:
        """The powers of two up to the first that holds `largest` images."""
        return sorted({bucket(size) for size in range(1, largest + 1)})

    def purify(
        self, images: Floats, classified: Sequence[int], *, keep: bool, stop: Stop
    ) -> Purification:
        """See `Graphs.purify`."""
        count = len(images)
        started = time.perf_counter()
        purified = self._purifier.run_bound(self._purifier.place(padded(images)), stop)
        kept = purified.numpy()[:count] if keep else None
        purify_s = time.perf_counter() - started
        logits, classify_s = None, None
        if classified:
            started = time.perf_counter()
            logits = self._classifier.run_bound(purified, stop).numpy()[list(classified)]
            classify_s = time.perf_counter() - started
        return Purification(kept, logits, purify_s, classify_s)

    def classify(self, images: Floats, stop: Stop) -> Floats:
        """See `Graphs.classify`."""
        placed = self._classifier.place(padded(images))
        logits: Floats = self._classifier.run_bound(placed, stop).numpy()[: len(images)]
        return logits

    def close(self) -> None:
        """See `Graphs.close`."""
        self._purifier.close()
        self._classifier.close()


def graphs_of(purifier: Session, classifier: Classifier) -> Graphs:
    """The way that suits the device on which the sessions were opened."""
    kind = HostGraphs if purifier.provider == CPU else DeviceGraphs
    return kind(purifier, classifier)


def bucket(size: int) -> int:
    """The smallest power of two that is not below `size`."""
    return 1 << (size - 1).bit_length()


def padded(images: Floats) -> Floats:
    """The images, with black ones behind them up to the size of their bucket."""
    missing = bucket(len(images)) - len(images)
    if not missing:
        return images
    return np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.float32)])


def rows_of(images: Floats, rows: Sequence[int]) -> Floats:
    """Some of the rows; all of them without a copy."""
    return images if len(rows) == len(images) else images[list(rows)]
