"""`preprocess.onnx`: makes of images in [0, 1] what a classifier that was brought takes.

It is written as a graph, so that service, training and evaluation prepare images by one and the
same file.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from app.bundle import InputSpec
from training.classifier_file import ClassifierError, ClassifierFile
from training.classifier_options import ClassifierOptions
from training.export import INPUT_NAME, OPSET

OUTPUT_NAME = "prepared"
_Floats = npt.NDArray[np.float32]


def preprocess_graph(
    spec: InputSpec, file: ClassifierFile, options: ClassifierOptions
) -> bytes | None:
    """The graph; None if the classifier takes the images as they are.

    Args:
        spec: the images that the purifier gives.
        file: the classifier, which may want another size or layout.
        options: scale, mean, std and order of the channels.

    Raises:
        ClassifierError: the images cannot become what the classifier takes.
    """
    size = _target(spec, file)
    steps = _Steps()
    if size != (spec.height, spec.width):
        steps.add("Resize", ["", "", "size"], mode="linear", axes=[2, 3], size=np.array(size))
    if options.channel_order == "bgr":
        if spec.channels == 1:
            raise ClassifierError(f"{file.name}: grey images have no --channel-order")
        steps.add("Gather", ["reversed"], axis=1, reversed=np.array([2, 1, 0]))
    factor, offset = _affine(spec, options, file.name)
    if (factor != 1).any():
        steps.add("Mul", ["factor"], factor=factor)
    if (offset != 0).any():
        steps.add("Add", ["offset"], offset=offset)
    if file.layout.endswith("hwc") and (spec.channels > 1 or file.layout == "hwc"):
        steps.add("Transpose", [], perm=[0, 2, 3, 1])
    if file.layout.startswith("flat"):
        steps.add("Flatten", [], axis=1)
    shape = [size[0], size[1], spec.channels]
    if file.layout == "chw":
        shape = [spec.channels, *size]
    elif file.layout.startswith("flat"):
        shape = [spec.channels * size[0] * size[1]]
    return steps.graph(spec, shape) if steps.nodes else None


def _target(spec: InputSpec, file: ClassifierFile) -> tuple[int, int]:
    """Height and width that the classifier wants.

    Raises:
        ClassifierError: it wants other channels or another number of pixels.
    """
    given = f"the images are of {spec.width}x{spec.height}x{spec.channels}"
    if file.layout.startswith("flat"):
        (pixels,) = file.shape
        if pixels not in (None, spec.channels * spec.height * spec.width):
            raise ClassifierError(
                f"{file.name}: it takes {pixels} numbers an image, {given}; "
                "give --size, and --grey for grey images"
            )
        return spec.height, spec.width
    channels, height, width = file.image
    if channels not in (None, spec.channels):
        grey = " --grey" if channels == 1 else ""
        raise ClassifierError(
            f"{file.name}: it takes images of {channels} channel(s), {given}; "
            f"give --size {spec.width}{grey}"
        )
    return height or spec.height, width or spec.width


def _affine(spec: InputSpec, options: ClassifierOptions, name: str) -> tuple[_Floats, _Floats]:
    """Factor and offset of each channel, (1, C, 1, 1), in the classifier's order."""
    for option, values in (("--mean", options.mean), ("--std", options.std)):
        if len(values) not in (1, spec.channels):
            raise ClassifierError(
                f"{name}: {option} has {len(values)} numbers, the images have "
                f"{spec.channels} channel(s)"
            )
    mean, std = (np.array(values, np.float64) for values in (options.mean, options.std))
    factor, offset = options.scale / std, -mean / std
    shaped = [
        np.broadcast_to(values, spec.channels).astype(np.float32).reshape(1, -1, 1, 1)
        for values in (factor, offset)
    ]
    return shaped[0], shaped[1]


class _Steps:
    """Nodes one after the other."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._last = INPUT_NAME

    def add(self, operator: str, inputs: list[str], **attributes: Any) -> None:
        """One more node; attributes that are arrays become constants of that name."""
        for key, value in list(attributes.items()):
            if isinstance(value, np.ndarray):
                self._constants.append(numpy_helper.from_array(value, key))
                del attributes[key]
        result = f"step_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, [self._last, *inputs], [result], **attributes))
        self._last = result

    def graph(self, spec: InputSpec, shape: list[int]) -> bytes:
        """All of them as a model."""
        self.nodes[-1].output[:] = [OUTPUT_NAME]
        taken = helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, ["N", *spec.shape])
        given = helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["N", *shape])
        graph = helper.make_graph(self.nodes, "preprocess", [taken], [given], self._constants)
        # The opset's own IR version: what loads the other graphs loads this one.
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8
        )
        onnx.checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString(deterministic=True)
        return content
