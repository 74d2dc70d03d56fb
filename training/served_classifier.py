"""A classifier that was brought, as the service runs it, and as attacks see it."""

import hashlib
import math
from typing import Any, Self

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
# Of one image they give the numbers that they take in the same order; `Cast` may round them, which
# the comparison with onnxruntime shows.
_SAME_NUMBERS = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")


class ServedGraph:
    """An ONNX file, run by onnxruntime on the CPU.

    Args:
        content: the file.
        input_name: of the images.
        output_name: of what counts, of perhaps several.

    Attributes:
        content: the file.
        sha256: of the file.

    Raises:
        ValueError: onnxruntime refuses it, or it has no such input.
    """

    def __init__(self, content: bytes, input_name: str, output_name: str) -> None:
        self.content = content
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._session = session_of(content)
        shapes = {item.name: item.shape for item in self._session.get_inputs()}
        if input_name not in shapes:
            raise ValueError(f"its inputs are {[*shapes]}, wanted is {input_name!r}")
        self._input, self._output = input_name, output_name
        self._single = shapes[input_name][:1] == [1]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: nothing in it changes, and a session cannot be copied."""
        return self

    def answers(self, images: Tensor) -> npt.NDArray[np.float32]:
        """What it gives for images (N, C, H, W) in [0, 1]; one row for each, or no such thing.

        Raises:
            ValueError: it fails on them.
        """
        # Large networks would want gigabytes for hundreds of images at once.
        plain = images.detach().cpu().contiguous()
        pieces = torch.split(plain, 1 if self._single else _BATCH)
        try:
            return np.concatenate([self._answered(piece.numpy()) for piece in pieces])
        except Exception as error:  # onnxruntime's classes have no common public base
            raise ValueError(f"onnxruntime cannot run it: {error}") from error

    def outputs(self, images: Tensor) -> Tensor:
        """The answers as they are, on the images' device."""
        return torch.from_numpy(self.answers(images)).to(images.device)

    def _answered(self, values: npt.NDArray[np.float32]) -> Any:
        """What onnxruntime gives for one batch."""
        return self._session.run([self._output], {self._input: values})[0]


class ServedClassifier(ServedGraph):
    """The classifier's own file behind its preprocessing, run by onnxruntime.

    Args:
        content: the classifier's file.
        preprocess: `preprocess.onnx`; None if it takes images as they are.
        spec: which output counts, and what it gives.

    Attributes:
        preprocess: see above.
        spec: see above.
    """

    def __init__(self, content: bytes, preprocess: bytes | None, spec: ClassifierSpec) -> None:
        super().__init__(content, spec.input, spec.output)
        self.spec = spec
        self.preprocess = preprocess
        self._preparing = session_of(preprocess) if preprocess else None

    def logits(self, images: Tensor) -> Tensor:
        """Logits (N, K), on the images' device."""
        found = self.outputs(images)
        if self.spec.gives == "probabilities":
            return found.clamp_min(PROBABILITY_FLOOR).log()
        return found

    def _answered(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(N, K), or what cannot be such."""
        if self._preparing is not None:
            (values,) = self._preparing.run(None, {"images": values})
        found = super()._answered(values)
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
        tensor, self._logarithm, self._order = _logits_within(parsed(content), spec)
        self.graph = ImportedGraph(content, tensor)
        self.eval().requires_grad_(False)
        self._single = False
        self._single = self._takes_one_at_a_time(images)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch of images."""
        prepared = self.preprocess(images)
        if self._single:
            pieces = torch.split(prepared, 1)
            found = torch.cat([self.graph(image).flatten(1) for image in pieces])
        else:
            found = self.graph(prepared).flatten(1)
        found = found.float()
        if self._order is not None:
            found = found[:, self._order]
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


def _logits_within(
    model: onnx.ModelProto, spec: ClassifierSpec
) -> tuple[str, bool, list[int] | None]:
    """The tensor to take for logits.

    Returns:
        its name; whether it holds probabilities after all; the order in which its numbers are
        served, if that is another one.
    """
    makers = {name: node for node in needed(model, spec.output) for name in node.output}
    tensor, order = spec.output, None
    while tensor in makers and makers[tensor].op_type in ("Identity", "ZipMap"):
        if makers[tensor].op_type == "ZipMap":
            order = _sorted_order(makers[tensor])
        tensor = makers[tensor].input[0]
    if spec.gives == "logits":
        return tensor, False, order
    before = tensor
    while before in makers and makers[before].op_type in _SAME_NUMBERS:
        before = makers[before].input[0]
    if before in makers and makers[before].op_type == "Softmax":
        return makers[before].input[0], False, order
    return tensor, True, order


def _sorted_order(zipmap: onnx.NodeProto) -> list[int] | None:
    """Where the labels of a map stand once they are sorted; None if they are already."""
    labels = next(
        list(item.strings or item.ints)
        for item in zipmap.attribute
        if item.name in ("classlabels_strings", "classlabels_int64s")
    )
    order = sorted(range(len(labels)), key=labels.__getitem__)
    return order if order != list(range(len(labels))) else None
