"""A classifier that a user brought, run as if it were one of ours: images in, logits out.

Its file is served byte for byte as it was given, so what it takes and gives is adapted around it: a
small graph prepares the images, probabilities become logits, and a graph that was exported for one
image at a time gets them one at a time.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from app.bundle import (
    CLASSIFIER_FILE,
    PREPROCESS_FILE,
    PROBABILITY_FLOOR,
    BundleError,
    ClassifierSpec,
    Manifest,
)
from app.interface import check_graph, check_shape, only_tensor, open_graph
from app.sessions import Device, Floats, Session
from app.stop import Stop

_TENSOR, _MAPS = "tensor(float)", "seq(map("


class AdaptedClassifier:
    """It stands where a `Session` of a classifier of ours would.

    Args:
        session: the user's own graph, with the output that counts.
        preprocess: makes what it takes of images in [0, 1]; None where it takes these.
        spec: what the manifest says of it.

    Attributes:
        provider: what it runs on, as onnxruntime names it.
    """

    def __init__(self, session: Session, preprocess: Session | None, spec: ClassifierSpec) -> None:
        self._session = session
        self._preprocess = preprocess
        self._probabilities = spec.gives == "probabilities"
        self._single = session.inputs[0].shape[0] == 1
        # Maps exist on the host alone, and so do the pieces of a batch that has to be taken apart.
        self._on_host = self._single or not _is_tensor(session, spec)
        self.provider = session.provider

    def run(self, images: Floats, stop: Stop | None = None) -> Floats:
        """The logits (N, K) of images (N, C, H, W) in [0, 1]."""
        prepared = images if self._preprocess is None else self._preprocess.run(images, stop)
        if not self._single:
            return self._logits(self._session.run(prepared, stop))
        answers = [
            self._logits(self._session.run(prepared[row : row + 1], stop))
            for row in range(len(prepared))
        ]
        return np.concatenate(answers)

    def place(self, images: Floats) -> ort.OrtValue:
        """The images on the session's device; on the CPU without a copy."""
        return self._session.place(images)

    def run_bound(self, images: ort.OrtValue, stop: Stop | None = None) -> ort.OrtValue:
        """As `run`, with the input where it is; the logits, which are few, come to the host."""
        if self._on_host:
            return ort.OrtValue.ortvalue_from_numpy(self.run(images.numpy(), stop))
        if self._preprocess is not None:
            images = self._preprocess.run_bound(images, stop)
        answers = self._session.run_bound(images, stop).numpy()
        return ort.OrtValue.ortvalue_from_numpy(self._logits(answers))

    def close(self) -> None:
        """Free its graphs; it cannot be run any more."""
        self._session.close()
        if self._preprocess is not None:
            self._preprocess.close()

    def _logits(self, answers: Any) -> Floats:
        """Logits of what the graph gave: a tensor, or a map from label to number for each image."""
        if isinstance(answers, list):
            answers = np.array([[row[k] for k in sorted(row)] for row in answers], np.float32)
        answers = answers.reshape(len(answers), -1)
        if self._probabilities:
            # What is not a number stays so, and is found to be so.
            answers = np.log(np.maximum(answers, np.float32(PROBABILITY_FLOOR)))
        logits: Floats = answers
        return logits


def open_adapted(
    folder: Path, manifest: Manifest, spec: ClassifierSpec, device: Device, threads: int
) -> AdaptedClassifier:
    """The classifier that the manifest describes.

    Raises:
        BundleError: a file was changed, is not a graph, or contradicts the manifest.
        DeviceError: the device cannot be used.
    """
    taken: Sequence[int | None] = (None, *manifest.input.shape)
    preprocess = None
    if PREPROCESS_FILE in manifest.files:
        path = folder / PREPROCESS_FILE
        preprocess = open_graph(folder, manifest, PREPROCESS_FILE, device, threads)
        check_graph(path, preprocess, manifest.input.shape, "prepared", None)
        taken = preprocess.outputs[0].shape
    path = folder / CLASSIFIER_FILE
    session = open_graph(folder, manifest, CLASSIFIER_FILE, device, threads, spec.output)
    _check_input(path, session, spec, taken)
    _check_output(path, session, spec, len(manifest.labels))
    return AdaptedClassifier(session, preprocess, spec)


def _check_input(
    path: Path, session: Session, spec: ClassifierSpec, taken: Sequence[int | None]
) -> None:
    """Refuse a graph that cannot take the prepared images."""
    tensor = only_tensor(path, "input", session.inputs, spec.input)
    check_shape(path, "input", tensor, taken)
    if tensor.shape[0] not in (None, 1):
        raise BundleError(
            f"{path}: its input {tensor.shape} takes batches of {tensor.shape[0]} alone; "
            "wanted are batches of any size, or of one image"
        )


def _check_output(path: Path, session: Session, spec: ClassifierSpec, classes: int) -> None:
    """Refuse a graph that does not give a number for each class.

    A size that it leaves open is settled by the warm-up.
    """
    found = {tensor.name: tensor for tensor in session.outputs}
    if spec.output not in found:
        raise BundleError(f"{path}: its outputs are {[*found]}, wanted is {spec.output!r}")
    tensor = found[spec.output]
    if not _is_tensor(session, spec):
        if not tensor.type.startswith(_MAPS):
            raise BundleError(f"{path}: its output is {tensor.type}, wanted is {_TENSOR}")
        return
    numbers = [size for size in tensor.shape[1:] if size is not None]
    if len(tensor.shape) - len(numbers) == 1 and math.prod(numbers) != classes:
        raise BundleError(
            f"{path}: its output has the shape {tensor.shape}, the manifest has {classes} labels"
        )


def _is_tensor(session: Session, spec: ClassifierSpec) -> bool:
    """Whether the output that counts is a tensor of floats."""
    return any(t.name == spec.output and t.type == _TENSOR for t in session.outputs)
