"""onnxruntime sessions: on the device that was asked for, or not at all."""

import ctypes
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

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

    Attributes:
        provider: what it runs on, as onnxruntime names it.
        inputs: the graph's inputs.
        outputs: the graph's outputs.
    """

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self.provider: str = session.get_providers()[0]
        self.inputs = [_tensor(node) for node in session.get_inputs()]
        self.outputs = [_tensor(node) for node in session.get_outputs()]

    def run(self, images: Floats) -> Floats:
        """The graph's only output for its only input."""
        (result,) = self._session.run(None, {self.inputs[0].name: images})
        returned: Floats = result
        return returned

    def close(self) -> None:
        """Free the graph, whoever still refers to this; it cannot be run any more."""
        del self._session


def open_session(graph: bytes, device: Device, threads: int) -> Session:
    """The graph on a device.

    Args:
        graph: a serialised ONNX model.
        device: `auto` takes CUDA where it loads and else the CPU.
        threads: of one inference on the CPU.

    Raises:
        DeviceError: the device was named and its provider does not load.
        ValueError: onnxruntime does not accept the graph.
    """
    if device == "auto":
        device = "cuda" if _has_cuda() else "cpu"
        session = _create(graph, device, threads)
        if device == "cuda" and session.provider != CUDA:
            logger.warning("a CUDA driver is present but its provider does not load: using the CPU")
        return session
    wanted = _WANTED[device]
    missing = wanted[0] not in ort.get_available_providers()
    if not missing:
        session = _create(graph, device, threads)
        if session.provider == wanted[0]:
            return session
    # onnxruntime goes on with the CPU without a word; an operator who named a device must know.
    reason = "this build of onnxruntime lacks it" if missing else "it does not load on this machine"
    raise DeviceError(f"the device {device} needs onnxruntime's {wanted[0]}, and {reason}")


def _create(graph: bytes, device: str, threads: int) -> Session:
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
        return Session(ort.InferenceSession(graph, options, providers=providers))
    except Exception as error:  # onnxruntime's own classes have no common public base
        raise ValueError(f"onnxruntime refuses the graph: {error}") from error


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
