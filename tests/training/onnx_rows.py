"""The operators of the importer: one row for one way to use each."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.training.onnx_models import Array, floats, model_of

IMAGE = (2, 3, 6, 5)
RANDOM = np.random.default_rng(0)
I64 = np.int64


def weights(*shape: int) -> Array:
    return RANDOM.normal(size=shape).astype(np.float32)


def whole(*numbers: int) -> Array:
    return np.array(numbers, I64)


def row(
    operator: str,
    constants: dict[str, Any] | None = None,
    /,
    *,
    shape: tuple[int, ...] = IMAGE,
    opset: int = 18,
    inputs: list[str] | None = None,
    flows: bool = True,
    low: float = -2.0,
    label: str = "",
    **attributes: Any,
) -> Any:
    """The operator on `x` and its constants; whether a gradient comes back."""
    constants = constants or {}
    domain, _, name = operator.rpartition(".")
    names = ["x", *constants] if inputs is None else inputs
    node = helper.make_node(name, names, ["y"], domain=domain, **attributes)
    content = model_of([node], shape, constants, opset=opset, ml=bool(domain))
    return pytest.param(content, shape, low, flows, id=f"{operator}-{opset}{label}")


CONV = {"w": weights(4, 3, 3, 3), "b": weights(4)}
NORM = {name: np.abs(weights(3)) + 0.5 for name in ("s", "b", "m", "v")}
ONE = {"c": np.float32(1.5)}
POOL: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [2, 2]}

UNARY = """
    Abs Celu Cos Elu Erf Exp HardSigmoid HardSwish Identity LeakyRelu Mish Neg Relu Selu Sigmoid
    Sin Softplus Softsign Tanh ThresholdedRelu
"""

ROWS = [
    *(row(name) for name in UNARY.split()),
    *(row(name, low=0.5) for name in ("Log", "Reciprocal", "Sqrt")),
    *(row(name, flows=False) for name in ("Ceil", "Floor", "Sign")),
    *(row(name, ONE) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Mean", "Sum")),
    row("Pow", ONE, low=0.1),
    row("Mod", ONE, fmod=1),
    row("Gelu", opset=20),
    row("Gelu", opset=20, approximate="tanh", label="-tanh"),
    row("HardSigmoid", alpha=0.3, beta=0.4, label="-set"),
    row("Elu", alpha=0.7, label="-set"),
    row("Clip", opset=9, min=-0.5, max=0.5),
    row("Clip", {"a": np.float32(-0.5), "b": np.float32(0.7)}),
    row("Clip", {"b": np.float32(0.7)}, inputs=["x", "", "b"], label="-above"),
    row("PRelu", {"s": weights(3, 1, 1)}),
    row("Cast", to=TensorProto.FLOAT),
    row("Softmax", opset=9, axis=1),
    row("Softmax", axis=1),
    row("LogSoftmax"),
    row("LogSoftmax", opset=11, shape=(3, 5), axis=1),
    row("Conv", CONV),
    row("Conv", CONV, pads=[1, 0, 2, 1], strides=[2, 1], label="-unequal"),
    row("Conv", CONV, auto_pad="SAME_UPPER", strides=[2, 2], label="-same"),
    row("Conv", CONV, auto_pad="SAME_LOWER", strides=[2, 2], label="-lower"),
    row("Conv", {"w": weights(6, 1, 3, 3)}, group=3, dilations=[2, 2], label="-depthwise"),
    row("Conv", {"w": weights(4, 3, 3)}, shape=(2, 3, 7), label="-1d"),
    row("ConvTranspose", {"w": weights(3, 4, 4, 4)}, strides=[2, 2], pads=[1, 1, 1, 1]),
    row(
        "ConvTranspose",
        {"w": weights(3, 4, 3, 3), "b": weights(4)},
        strides=[2, 2],
        pads=[1, 0, 1, 1],
        output_padding=[1, 1],
        label="-uneven",
    ),
    row("MaxPool", **POOL),
    row("MaxPool", **POOL, pads=[1, 1, 1, 1], ceil_mode=1, label="-ceil"),
    row("MaxPool", **POOL, auto_pad="SAME_UPPER", label="-same"),
    row("MaxPool", kernel_shape=[2, 2], dilations=[2, 2], label="-dilated"),
    row("AveragePool", **POOL),
    row("AveragePool", **POOL, pads=[1, 1, 1, 1], label="-padded"),
    row("AveragePool", **POOL, pads=[1, 0, 1, 1], count_include_pad=1, label="-counted"),
    row("AveragePool", **POOL, ceil_mode=1, label="-ceil"),
    row("AveragePool", **POOL, auto_pad="SAME_UPPER", label="-same"),
    row("GlobalAveragePool"),
    row("GlobalMaxPool"),
    row("BatchNormalization", NORM, opset=9, epsilon=1e-3),
    row("BatchNormalization", NORM),
    row("InstanceNormalization", {"s": NORM["s"], "b": NORM["b"]}),
    row("LayerNormalization", {"s": weights(6, 5), "b": weights(6, 5)}, axis=2),
    row("LayerNormalization", {"s": weights(5)}, label="-last"),
    row(
        "GroupNormalization",
        {"s": weights(2), "b": weights(2)},
        shape=(2, 4, 3, 3),
        num_groups=2,
    ),
    row(
        "GroupNormalization",
        {"s": weights(4), "b": weights(4)},
        shape=(2, 4, 3, 3),
        opset=21,
        num_groups=2,
    ),
    row("LRN", shape=(2, 7, 3, 3), size=5, alpha=0.1, beta=0.6, bias=2.0),
    row("LpNormalization", shape=(3, 4), axis=1, p=2),
    row("Gemm", {"w": weights(5, 4), "b": weights(5)}, shape=(3, 4), transB=1, alpha=0.5),
    row("Gemm", {"w": weights(3, 5)}, shape=(3, 4), transA=1, label="-turned"),
    row("MatMul", {"w": weights(5, 4)}),
    row("Einsum", {"w": weights(5, 4)}, shape=(3, 5), equation="ij,jk->ik"),
    *(row(f"Reduce{name}", axes=[2, 3], opset=11) for name in ("Mean", "Sum", "Max", "Min")),
    *(
        row(f"Reduce{name}", {"a": whole(-1, 1)}, keepdims=0)
        for name in ("Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSumExp")
    ),
    row("ReduceMean", label="-all"),
    row("ReduceMean", noop_with_empty_axes=1, label="-none"),
    row("ReduceMax", {"a": whole(2)}, opset=20),
    row("Flatten"),
    row("Flatten", axis=-1, label="-last"),
    row("Reshape", {"s": whole(0, -1, 5)}),
    row("Transpose"),
    row("Transpose", perm=[0, 2, 3, 1], label="-channels"),
    row("Squeeze", shape=(2, 3, 1, 1), opset=11, axes=[2, 3]),
    row("Squeeze", {"a": whole(-1)}, shape=(2, 3, 1, 1)),
    row("Squeeze", shape=(2, 3, 1), label="-all"),
    row("Unsqueeze", opset=11, axes=[0, -1]),
    row("Unsqueeze", {"a": whole(0, -1)}),
    row("Concat", {"w": weights(2, 1, 6, 5)}, axis=1),
    row("Slice", opset=9, starts=[0, 1], ends=[2, 4], axes=[1, 2]),
    row("Slice", {"s": whole(1, 5), "e": whole(3, -7), "a": whole(1, 2), "t": whole(1, -2)}),
    row("Split", opset=11, axis=1, split=[3]),
    row("Gather", {"i": whole(2, -3)}, axis=1),
    row("Gather", {"i": np.int64(1)}, axis=2, label="-scalar"),
    row("GatherND", {"i": np.array([[0, 1], [1, -2]], I64)}),
    row("ScatterND", {"i": np.array([[0, 1, 2]], I64), "u": weights(1, 5)}),
    row("Expand", {"s": whole(2, 1, 6, 5)}, shape=(1, 3, 1, 5)),
    row("Tile", {"r": whole(1, 2, 1, 1)}),
    row("Dropout", opset=9, ratio=0.5),
    row("Dropout"),
    row("Pad", opset=9, pads=[0, 0, 1, 2, 0, 0, 2, 1], value=0.5),
    row("Pad", {"p": whole(0, 0, 1, 2, 0, 0, 2, 1)}, mode="edge"),
    row("Pad", {"p": whole(0, 1, -1, 2, 0, 0, 0, 1)}),
    row("Pad", {"p": whole(1, 2, 2, 1), "v": np.float32(3), "a": whole(2, 3)}, mode="reflect"),
    row("Upsample", {"s": floats([1, 1, 2, 3])}, opset=9),
    *(  # 10 by 0.7 are 7 in float32, by 1.3 are 13; 6 by 1.1 stay 6, and are left alone
        row(
            "Resize",
            {"s": floats([1, 1, by, by])},
            shape=(1, 2, size, size),
            inputs=["x", "", "s"],
            mode=mode,
            label=f"-{size}-{by}-{mode}",
        )
        for size, by in ((10, 0.7), (10, 1.3), (16, 1 / 3), (6, 1.1))
        for mode in ("nearest", "linear")
    ),
    row("Resize", {"s": floats([1, 1, 2, 1.5])}, opset=10, mode="linear"),
    row(
        "Resize",
        {"s": floats([1, 1, 2, 2])},
        inputs=["x", "", "s"],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    ),
    *(
        row(
            "Resize",
            {"t": whole(9, 3)},
            inputs=["x", "", "", "t"],
            axes=[2, 3],
            mode=mode,
            coordinate_transformation_mode=places,
            label=f"-{mode}-{places}",
        )
        for mode in ("nearest", "linear")
        for places in ("half_pixel", "pytorch_half_pixel", "align_corners")
    ),
    row("DepthToSpace", shape=(2, 8, 3, 2), blocksize=2),
    row("DepthToSpace", shape=(2, 8, 3, 2), blocksize=2, mode="CRD", label="-crd"),
    row("SpaceToDepth", shape=(2, 2, 4, 6), blocksize=2),
    *(row("ai.onnx.ml.Normalizer", shape=(3, 4), norm=n, label=n) for n in ("L1", "L2")),
    row("ai.onnx.ml.Scaler", shape=(3, 2), offset=[0.5, 1.0], scale=[2.0, 3.0]),
]
