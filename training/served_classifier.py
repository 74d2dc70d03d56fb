"""A classifier that was brought, as the service runs it, and as attacks see it."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn

from app.bundle import PROBABILITY_FLOOR, ClassifierSpec, InputSpec
from training.classifier_file import session_of
from training.onnx_importer import ImportedGraph, needed, parsed

_BATCH = 64
_PROBE_IMAGES = 3
_SAME = 1e-3


class ServedClassifier:
    """The classifier's own file behind its preprocessing, run by onnxruntime.

    Args:
        content: the classifier's file.
        preprocess: `preprocess.onnx`; None if it takes images as they are.
        spec: which output counts, and what it gives.

    Attributes:
        sha256: of the file.
        preprocess: see above.
        spec: see above.
    """

    def __init__(self, content: bytes, preprocess: bytes | None, spec: ClassifierSpec) -> None:
        self.spec = spec
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.preprocess = preprocess
        self._session = session_of(content)
        self._preparing = session_of(preprocess) if preprocess else None
        self._input = next(item for item in self._session.get_inputs() if item.name == spec.input)
        self._single = self._input.shape[:1] == [1]

    def __deepcopy__(self, memo: dict[int, Any]) -> "ServedClassifier":
        """Itself: nothing in it changes, and a session cannot be copied."""
        return self

    def answers(self, images: Tensor) -> npt.NDArray[np.float32]:
        """What it gives for images (N, C, H, W) in [0, 1]: (N, K), or what cannot be such.

        Raises:
            ValueError: it fails on them.
        """
        # Large classifiers would want gigabytes for hundreds of images at once.
        plain = images.detach().cpu().contiguous()
        pieces = torch.split(plain, 1 if self._single else _BATCH)
        try:
            return np.concatenate([self._answered(piece.numpy()) for piece in pieces])
        except Exception as error:  # onnxruntime's classes have no common public base
            raise ValueError(f"onnxruntime cannot run it: {error}") from error

    def logits(self, images: Tensor) -> Tensor:
        """Logits (N, K), on the images' device."""
        found = torch.from_numpy(self.answers(images)).to(images.device)
        if self.spec.gives == "probabilities":
            return found.clamp_min(PROBABILITY_FLOOR).log()
        return found

    def _answered(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if self._preparing is not None:
            (values,) = self._preparing.run(None, {"images": values})
        (found,) = self._session.run([self.spec.output], {self._input.name: values})
        if isinstance(found, list):  # a map from label to number for each image
            found = np.array([[row[key] for key in sorted(row)] for row in found], np.float32)
        # Of no images at all, NumPy could not tell what -1 stands for.
        answers: npt.NDArray[np.float32] = found.reshape(len(found), math.prod(found.shape[1:]))
        return answers


class ImportedClassifier(nn.Module):
    """The same in PyTorch, with gradients.

    Where the last step is a softmax, the logits before it are given: probabilities in float32
    become exactly 0 and 1, and with them every gradient.

    Args:
        content: the classifier's file.
        preprocess: `preprocess.onnx`; None if it takes images as they are.
        spec: which output counts, and what it gives.
        images: that it is shown.

    Raises:
        UnsupportedGraph: the importer lacks some of its operators.

    Shape:
        images: (N, C, H, W), float32 in [0, 1].
        returns: logits (N, K).
    """

    def __init__(
        self, content: bytes, preprocess: bytes | None, spec: ClassifierSpec, images: InputSpec
    ) -> None:
        super().__init__()
        self.preprocess = ImportedGraph(preprocess) if preprocess else nn.Identity()
        tensor, self._logarithm = _logits_within(parsed(content), spec)
        self.graph = ImportedGraph(content, tensor)
        self.eval().requires_grad_(False)
        self._single = False
        self._single = self._takes_one_at_a_time(images)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch of images."""
        prepared = self.preprocess(images)
        if self._single:
            found = torch.cat([self.graph(image).flatten(1) for image in torch.split(prepared, 1)])
        else:
            found = self.graph(prepared).flatten(1)
        return found.clamp_min(PROBABILITY_FLOOR).log() if self._logarithm else found

    def _takes_one_at_a_time(self, images: InputSpec) -> bool:
        """Whether the graph refuses or mixes the images of a batch, as one made for one may."""
        probe = torch.rand(_PROBE_IMAGES, *images.shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            alone = torch.cat([self(image) for image in torch.split(probe, 1)])
            try:
                together = self(probe)
            except (RuntimeError, ValueError):
                return True
        if together.shape != alone.shape:
            return True
        return not bool(((together - alone).abs() <= _SAME * (1 + alone.abs())).all())


class StandIn(nn.Module):
    """The served classifier's own answers with the gradients of a surrogate.

    For a classifier that has none. An attack on it judges every image by what is served, and only
    looks for the way with the surrogate's help.

    Args:
        served: the classifier.
        surrogate: images (N, C, H, W) to logits (N, K), taught by its answers.

    Shape:
        As the surrogate.

    Source:
        Athalye, Carlini, Wagner 2018, section 4.1 (BPDA), with a learnt backward pass.
    """

    def __init__(self, served: ServedClassifier, surrogate: nn.Module) -> None:
        super().__init__()
        self.served = served
        self.surrogate = surrogate
        digest = bytearray(bytes.fromhex(served.sha256))
        self.register_buffer("digest", torch.frombuffer(digest, dtype=torch.uint8))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch of images."""
        guess: Tensor = self.surrogate(images)
        return self.served.logits(images) + (guess - guess.detach())


def _logits_within(model: onnx.ModelProto, spec: ClassifierSpec) -> tuple[str, bool]:
    """The tensor to take for logits, and whether it holds probabilities after all."""
    makers = {name: node for node in needed(model, spec.output) for name in node.output}
    tensor = spec.output
    while tensor in makers and makers[tensor].op_type in ("Identity", "ZipMap"):
        tensor = makers[tensor].input[0]
    if spec.gives == "logits":
        return tensor, False
    if tensor in makers and makers[tensor].op_type == "Softmax":
        return makers[tensor].input[0], False
    return tensor, True


def largest_difference(
    served: ServedClassifier, network: nn.Module, images: Tensor, sizes: Sequence[int]
) -> float:
    """How far network and file differ at most, on batches of several sizes.

    Logits are compared in units of the largest of the file's, if that is above 1; probabilities
    as they are, for logits may differ by a number that is the same for all classes.
    """
    largest = 0.0
    for size in sizes:
        batch = images[:size]
        expected = torch.from_numpy(served.answers(batch))
        with torch.no_grad():
            found = network(batch)
        if served.spec.gives == "probabilities":
            found = found.softmax(1)
        if found.shape != expected.shape:
            return float("inf")
        difference = (found - expected).abs().max() / max(1.0, float(expected.abs().max()))
        largest = max(largest, float(difference.nan_to_num(float("inf"))))
    return largest
