"""onnxruntime sessions: on the device that was asked for, or not at all."""

import ctypes
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from app.stop import Stop

logger = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda", "tensorrt"]
Floats = npt.NDArray[np.float32]

CPU, CUDA, TENSORRT = (
    "CPUExecutionProvider",
    "CUDAExecutionProvider",
    "TensorrtExecutionProvider",
)
_WANTED = {"cpu": [CPU], "cuda": [CUDA, CPU], "tensorrt": [TENSORRT, CUDA, CPU]}

# TF32 rounds more coarsely than the arithmetic the robustness card was measured with, and an
# exhaustive search for kernels would take seconds for every batch size.
_OPTIONS: Mapping[str, Mapping[str, str]] = {
    CUDA: {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"},
    TENSORRT: {},
    CPU: {},
}


class DeviceError(RuntimeError):
    """The device that was asked for cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """Name and shape of a graph's input or output; None for a dynamic dimension."""

    name: str
    shape: tuple[int | None, ...]
    type: str


class Session:
    """One graph, ready to run.

    Args:
        session: of onnxruntime.
        output: the output that is wanted; None: the first.

    Attributes:
        provider: what it runs on, as onnxruntime names it.
        inputs: the graph's inputs.
        outputs: the graph's outputs.
        device: where its tensors lie when they are bound, as onnxruntime names it.
    """

    def __init__(self, session: ort.InferenceSession, output: str | None = None) -> None:
        self._session = session
        self.provider: str = session.get_providers()[0]
        self.device = "cpu" if self.provider == CPU else "cuda"
        self.inputs = [_tensor(node) for node in session.get_inputs()]
        self.outputs = [_tensor(node) for node in session.get_outputs()]
        self._wanted = [output or self.outputs[0].name]

    def run(self, images: Floats, stop: Stop | None = None) -> Floats:
        """The wanted output for the graph's only input.

        Args:
            images: the input.
            stop: ends the run before its next node, with an exception.
        """
        feeds = {self.inputs[0].name: images}
        (result,) = self._session.run(self._wanted, feeds, _run_options(stop))
        returned: Floats = result
        return returned

    def place(self, images: Floats) -> ort.OrtValue:
        """The images on the session's device; on the CPU without a copy."""
        return ort.OrtValue.ortvalue_from_numpy(images, self.device, 0)

    def run_bound(self, images: ort.OrtValue, stop: Stop | None = None) -> ort.OrtValue:
        """As `run`, with the input where it is and the output left on the device.

        It returns when the output is there, so that what it takes can be measured.
        """
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self.inputs[0].name, images)
        binding.bind_output(self._wanted[0], self.device, 0)
        self._session.run_with_iobinding(binding, _run_options(stop))
        binding.synchronize_outputs()
        (result,) = binding.get_outputs()
        return result

    def close(self) -> None:
        """Free the graph, whoever still refers to this; it cannot be run any more."""
        del self._session


def open_session(graph: bytes, device: Device, threads: int, output: str | None = None) -> Session:
    """The graph on a device.

    Args:
        graph: a serialised ONNX model.
        device: `auto` takes CUDA where it loads and else the CPU.
        threads: of one inference on the CPU.
        output: the output that is wanted; None: the first.

    Raises:
        DeviceError: the device was named and its provider does not load.
        ValueError: onnxruntime does not accept the graph.
    """
    if device == "auto":
        device = "cuda" if _has_cuda() else "cpu"
        session = _create(graph, device, threads, output)
        if device == "cuda" and session.provider != CUDA:
            logger.warning("a CUDA driver is present but its provider does not load: using the CPU")
        return session
    wanted = _WANTED[device]
    missing = wanted[0] not in ort.get_available_providers()
    if not missing:
        session = _create(graph, device, threads, output)
        if session.provider == wanted[0]:
            return session
    # onnxruntime goes on with the CPU without a word; an operator who named a device must know.
    reason = "this build of onnxruntime lacks it" if missing else "it does not load on this machine"
    raise DeviceError(f"the device {device} needs onnxruntime's {wanted[0]}, and {reason}")


def _create(graph: bytes, device: str, threads: int, output: str | None) -> Session:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Idle threads that spin would take the processor from decoding and the event loop.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if device != "cpu":
        ort.preload_dlls()
    available = ort.get_available_providers()
    providers = [(name, dict(_OPTIONS[name])) for name in _WANTED[device] if name in available]
    try:
        return Session(ort.InferenceSession(graph, options, providers=providers), output)
    except Exception as error:  # onnxruntime's own classes have no common public base
        raise ValueError(f"onnxruntime refuses the graph: {error}") from error


def _run_options(stop: Stop | None) -> ort.RunOptions:
    options = ort.RunOptions()
    # A run that fails raises; onnxruntime would print the same to standard error beside our log.
    options.log_severity_level = 4
    if stop is not None:
        stop.call(lambda: setattr(options, "terminate", True))
    return options


def _has_cuda() -> bool:
    """Whether trying CUDA is worth the error messages it prints where there is no driver."""
    if CUDA not in ort.get_available_providers():
        return False
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _tensor(node: Any) -> Tensor:
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    return Tensor(node.name, shape, node.type)
