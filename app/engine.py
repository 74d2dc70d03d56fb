"""A bundle's two graphs, loaded from verified bytes, checked, warmed up and run."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.adapter import open_adapted
from app.bundle import CLASSIFIER_FILE, PURIFIER_FILE, BundleError, Manifest
from app.errors import InferenceFailed
from app.graphs import Graphs, graphs_of, rows_of
from app.interface import check_graph, open_graph
from app.sessions import Device, Floats
from app.shift import Probabilities, softmax
from app.stop import Stop


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One image and what is wanted of it.

    Attributes:
        pixels: (C, H, W), uint8.
        purified_image: the purified image itself.
        plain: the classifier on the image as it is.
        purified: the classifier on the purified image.
    """

    pixels: npt.NDArray[np.uint8]
    purified_image: bool = False
    plain: bool = False
    purified: bool = False

    @property
    def purify(self) -> bool:
        """Whether the purifier is needed at all."""
        return self.purified_image or self.purified


@dataclass(slots=True, eq=False)
class Outcome:
    """What was wanted of one image, and the seconds its batch took.

    Attributes:
        purified_image: (C, H, W), float32 in [0, 1].
        plain: class probabilities (K,) of the image as it is.
        purified: class probabilities (K,) of the purified image.
        purify_s: of the whole batch; None if the purifier was not needed.
        classify_s: of the whole batch; None if the classifier was not needed.
    """

    purified_image: Floats | None = None
    plain: Probabilities | None = None
    purified: Probabilities | None = None
    purify_s: float | None = None
    classify_s: float | None = None


class Engine:
    """The purifier and the classifier of one bundle.

    Attributes:
        provider: what both run on, as onnxruntime names it.
    """

    def __init__(self, graphs: Graphs) -> None:
        self._graphs = graphs
        self.provider = graphs.provider

    def batch_sizes(self, largest: int) -> Sequence[int]:
        """The batch sizes to run once before serving, so that no request pays for a first run."""
        return self._graphs.batch_sizes(largest)

    def run(
        self, tasks: Sequence[Task], stop: Stop | None = None
    ) -> list[Outcome | InferenceFailed]:
        """An outcome for each task, computed as one batch.

        An image whose result is not finite fails alone.

        Args:
            tasks: at least one.
            stop: ends the computation early, with an exception.
        """
        stop = stop or Stop()
        images = np.divide(  # (N, C, H, W) in [0, 1]
            np.stack([task.pixels for task in tasks]), np.float32(255), dtype=np.float32
        )
        outcomes = [Outcome() for _ in tasks]
        broken: set[int] = set()
        to_purify = [i for i, task in enumerate(tasks) if task.purify]
        if to_purify:
            broken |= self._purify(images, to_purify, tasks, outcomes, stop)
        plain = [i for i, task in enumerate(tasks) if task.plain]
        if plain:
            started = time.perf_counter()
            logits = self._graphs.classify(rows_of(images, plain), stop)  # (len(plain), K)
            seconds = time.perf_counter() - started
            broken |= _not_finite(logits, plain)
            for i, probabilities in zip(plain, softmax(logits), strict=True):
                outcomes[i].plain = probabilities
                outcomes[i].classify_s = (outcomes[i].classify_s or 0.0) + seconds
        return [
            InferenceFailed(_NOT_FINITE) if i in broken else outcome
            for i, outcome in enumerate(outcomes)
        ]

    def close(self) -> None:
        """Free both graphs, whoever still refers to this; it cannot be run any more."""
        self._graphs.close()

    def _purify(
        self,
        images: Floats,
        rows: list[int],
        tasks: Sequence[Task],
        outcomes: list[Outcome],
        stop: Stop,
    ) -> set[int]:
        """Purify some of the images, and classify those of them that ask for it.

        Returns:
            Those whose result is not finite.
        """
        classified = [row for row, i in enumerate(rows) if tasks[i].purified]
        keep = any(tasks[i].purified_image for i in rows)
        found = self._graphs.purify(rows_of(images, rows), classified, keep=keep, stop=stop)
        broken: set[int] = set()
        if found.images is not None:
            broken |= {i for i in _not_finite(found.images, rows) if tasks[i].purified_image}
        for row, i in enumerate(rows):
            outcomes[i].purify_s = found.purify_s
            if tasks[i].purified_image:
                assert found.images is not None
                # A copy: a view would keep the whole batch alive until the last answer is sent.
                outcomes[i].purified_image = found.images[row].copy()
        if found.logits is not None:
            asking = [rows[row] for row in classified]
            broken |= _not_finite(found.logits, asking)
            for i, probabilities in zip(asking, softmax(found.logits), strict=True):
                outcomes[i].purified = probabilities
                outcomes[i].classify_s = found.classify_s
        return broken


_NOT_FINITE = "The model's result for this image is not finite."


def load_engine(folder: Path, manifest: Manifest, device: Device, threads: int) -> Engine:
    """The engine of the bundle in `folder`: files verified, graphs checked against the manifest.

    Raises:
        BundleError: a file was changed, is not a graph, or contradicts the manifest.
        DeviceError: the device cannot be used.
    """
    image = manifest.input.shape
    purifier = open_graph(folder, manifest, PURIFIER_FILE, device, threads)
    check_graph(folder / PURIFIER_FILE, purifier, image, "purified", image)
    if manifest.classifier is not None:
        adapted = open_adapted(folder, manifest, manifest.classifier, device, threads)
        return Engine(graphs_of(purifier, adapted))
    classifier = open_graph(folder, manifest, CLASSIFIER_FILE, device, threads)
    check_graph(folder / CLASSIFIER_FILE, classifier, image, "logits", (len(manifest.labels),))
    return Engine(graphs_of(purifier, classifier))


def probe_task(manifest: Manifest) -> Task:
    """A black image through both graphs: a bundle that cannot do this is never served."""
    pixels = np.zeros(manifest.input.shape, np.uint8)
    return Task(pixels, purified_image=True, purified=True)


def warm_up(engine: Engine, folder: Path, manifest: Manifest, max_batch_size: int) -> None:
    """Run a batch of each size that `Engine.batch_sizes` names.

    Raises:
        BundleError: a graph fails, or its output has another shape than the manifest says.
    """
    task = probe_task(manifest)
    for size in engine.batch_sizes(max_batch_size):
        try:
            outcome = engine.run([task] * size)[-1]
        except Exception as error:
            raise BundleError(f"{folder}: a batch of {size} fails: {error}") from error
        if isinstance(outcome, InferenceFailed):
            raise BundleError(f"{folder}: a black image gives a result that is not finite")
        assert outcome.purified_image is not None and outcome.purified is not None
        shapes = outcome.purified_image.shape, outcome.purified.shape
        if shapes != (manifest.input.shape, (len(manifest.labels),)):
            raise BundleError(
                f"{folder}: the graphs give {shapes[0]} and {shapes[1]}, "
                f"the manifest says {manifest.input.shape} and ({len(manifest.labels)},)"
            )


def _not_finite(results: Floats, owners: Sequence[int]) -> set[int]:
    """The owners of the rows that hold anything but finite numbers."""
    fine = np.isfinite(results).all(axis=tuple(range(1, results.ndim)))
    return set() if fine.all() else {owners[int(row)] for row in np.flatnonzero(~fine)}
