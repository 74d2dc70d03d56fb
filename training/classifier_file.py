"""What an ONNX classifier takes and gives, read from its file, with what is wrong named."""

import math
from dataclasses import dataclass

import onnxruntime
import torch

from app.bundle import InputSpec
from training.classifier_options import ClassifierOptions, Layout
from training.onnx_importer import input_of, parsed

_FLOATS, _MAPS = "tensor(float)", "seq(map("
_CHANNELS = (1, 3)


class ClassifierError(ValueError):
    """A classifier that cannot be used as it is described; the message says why."""


@dataclass(frozen=True)
class ClassifierFile:
    """An ONNX classifier.

    Attributes:
        name: of the file, for messages.
        content: the file.
        input: name of its only input.
        output: name of the output that counts.
        shape: of the input without the batch; None for sizes that it leaves open.
        layout: of one image.
        single: it was exported for a batch of one image.
    """

    name: str
    content: bytes
    input: str
    output: str
    shape: tuple[int | None, ...]
    layout: Layout
    single: bool

    @property
    def spec(self) -> InputSpec | None:
        """The images that it takes, where its shape settles them."""
        if self.layout.startswith("flat"):
            return _square(self.shape[0])
        channels, height, width = self.image
        if channels is None or height is None or width is None:
            return None
        return InputSpec(channels=1 if channels == 1 else 3, height=height, width=width)

    @property
    def image(self) -> tuple[int | None, int | None, int | None]:
        """(C, H, W) of an input that is not flat."""
        first, second, third = self.shape
        return (first, second, third) if self.layout == "chw" else (third, first, second)


def read_onnx(name: str, content: bytes, options: ClassifierOptions) -> ClassifierFile:
    """The classifier of an ONNX file.

    Raises:
        ClassifierError: it has several inputs, takes no float images, or gives no numbers for
            classes; the message says which and what to do.
    """
    try:
        taken = input_of(parsed(content))
        session = session_of(content)
    except ValueError as error:
        raise ClassifierError(f"{name}: {error}") from error
    tensor = next(item for item in session.get_inputs() if item.name == taken)
    if tensor.type != _FLOATS:
        raise ClassifierError(f"{name}: its input is {tensor.type}; wanted are images as float32")
    sizes = [size if isinstance(size, int) else None for size in tensor.shape]
    if len(sizes) not in (2, 4):
        raise ClassifierError(
            f"{name}: its input has the shape {tensor.shape}; wanted is (N, C, H, W), "
            "(N, H, W, C) or (N, pixels)"
        )
    batch, *shape = sizes
    if batch not in (None, 1):
        raise ClassifierError(
            f"{name}: it takes {batch} images at once and no other number; export it with a "
            "dynamic batch, or for one image"
        )
    layout = options.layout or _layout(name, shape)
    if layout.startswith("flat") != (len(shape) == 1):
        raise ClassifierError(f"{name}: an input of {tensor.shape} is not --layout {layout}")
    channels = None if len(shape) == 1 else shape[0 if layout == "chw" else 2]
    if channels not in (None, *_CHANNELS):
        raise ClassifierError(
            f"{name}: its input {tensor.shape} has {channels} channels as --layout {layout}; "
            "images have 1 or 3"
        )
    output = _output(name, session, options.output)
    return ClassifierFile(name, content, taken, output, tuple(shape), layout, batch == 1)


def session_of(content: bytes, threads: int | None = None) -> onnxruntime.InferenceSession:
    """The graph on the CPU, quiet, with as many threads as PyTorch has if no number is given.

    Raises:
        ValueError: onnxruntime refuses it.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads() if threads is None else threads
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes have no common public base
        raise ValueError(f"onnxruntime refuses it: {error}") from error


def _layout(name: str, shape: list[int | None]) -> Layout:
    """What the shape says; channels last if the last axis could be channels and the first not."""
    if len(shape) == 4 - 1:
        last = shape[2] in _CHANNELS and shape[0] not in _CHANNELS
        return "hwc" if last else "chw"
    square = _square(shape[0])
    if square is not None and square.channels == 3:
        raise ClassifierError(
            f"{name}: it takes {shape[0]} numbers in a row; say with --layout flat-hwc or "
            "flat-chw whether the channels of a pixel stand together"
        )
    return "flat-chw"


def _square(pixels: int | None) -> InputSpec | None:
    """The only square image, grey or colour, of so many numbers."""
    for channels in _CHANNELS:
        side = math.isqrt((pixels or 0) // channels)
        if pixels and channels * side**2 == pixels and side <= 1024:
            return InputSpec(channels=1 if channels == 1 else 3, height=side, width=side)
    return None


def _output(name: str, session: onnxruntime.InferenceSession, wanted: str | None) -> str:
    """The output that counts: the one that is asked for, or the only one of floats."""
    types = {item.name: item.type for item in session.get_outputs()}
    usable = [key for key, kind in types.items() if kind == _FLOATS] or [
        key for key, kind in types.items() if kind.startswith(_MAPS)
    ]
    listed = ", ".join(f"{key} ({kind})" for key, kind in types.items())
    if wanted is not None:
        if wanted not in types:
            raise ClassifierError(f"{name}: it has no output {wanted!r}; it has {listed}")
        if types[wanted] != _FLOATS and not types[wanted].startswith(_MAPS):
            raise ClassifierError(f"{name}: its output {wanted} is {types[wanted]}, no float32")
        return wanted
    if not usable:
        raise ClassifierError(f"{name}: none of its outputs is float32; it has {listed}")
    if len(usable) != 1:
        raise ClassifierError(
            f"{name}: which output counts? Name it with --output; it has {listed}"
        )
    return str(usable[0])
