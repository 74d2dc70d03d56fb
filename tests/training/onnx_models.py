"""Tiny ONNX models as other exporters write them, and what onnxruntime makes of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
Constants = Mapping[str, Array | np.generic]


def floats(values: Any) -> Array:
    """Numbers in lists as an array."""
    return np.array(values, np.float32)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str],
    constants: Constants,
    *,
    opset: int = 18,
    outputs: Sequence[str] = ("y",),
    ml: bool = False,
) -> bytes:
    """A model with the input `x`, float32, whose output shapes are left open."""
    initialisers = [
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    ]
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        initialisers,
    )
    opsets = [helper.make_opsetid("", opset)]
    if ml:
        opsets.append(helper.make_opsetid("ai.onnx.ml", 1))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=4 if opset < 11 else 9)
    content: bytes = model.SerializeToString()
    return content


def computed(content: bytes, values: Array, output: str | None = None) -> Any:
    """What onnxruntime gives for an output, the first if none is named."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output or session.get_outputs()[0].name]
    return session.run(names, {session.get_inputs()[0].name: values})[0]
