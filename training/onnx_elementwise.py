"""ONNX operators that work on each element: arithmetic, comparisons, activations."""

from collections.abc import Callable, Mapping
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional

from training.onnx_node import Node, Operator, UnsupportedNode

# ONNX's numbers of the types that graphs of classifiers hold.
_TYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}


def divide(node: Node, left: Tensor, right: Tensor) -> Tensor:
    """Whole numbers are divided without remainder."""
    mode = None if left.is_floating_point() else "trunc"
    return torch.div(left, right, rounding_mode=mode)


def modulo(node: Node, left: Tensor, right: Tensor) -> Tensor:
    """The remainder, with the sign of the divisor, or of the dividend if `fmod` is set."""
    return torch.fmod(left, right) if node.get("fmod", 0) else torch.remainder(left, right)


def clip(
    node: Node, values: Tensor, low: Tensor | None = None, high: Tensor | None = None
) -> Tensor:
    """Bounds are inputs from opset 11 on, attributes before."""
    if node.opset < 11:
        return torch.clamp(values, node.get("min"), node.get("max"))
    return values if low is None and high is None else torch.clamp(values, low, high)


def cast(node: Node, values: Tensor) -> Tensor:
    """Another type of numbers."""
    number = node.get("to")
    if number not in _TYPES:
        raise UnsupportedNode(f"Cast to type {number}")
    return values.to(_TYPES[number])


def p_relu(node: Node, values: Tensor, slope: Tensor) -> Tensor:
    """A slope for each channel, or whatever can be broadcast."""
    return torch.where(values < 0, slope * values, values)


def softmax(node: Node, values: Tensor) -> Tensor:
    """Over one axis; before opset 13 over all axes from that one on."""
    return _over_axis(node, values, torch.softmax)


def log_softmax(node: Node, values: Tensor) -> Tensor:
    """As `softmax`."""
    return _over_axis(node, values, torch.log_softmax)


def _over_axis(node: Node, values: Tensor, function: Callable[[Tensor, int], Tensor]) -> Tensor:
    if node.opset >= 13:
        return function(values, node.get("axis", -1))
    axis = node.get("axis", 1) % values.dim()
    return function(values.flatten(axis), axis).reshape(values.shape)


def gelu(node: Node, values: Tensor) -> Tensor:
    """Exact, or by tanh."""
    return functional.gelu(values, approximate=node.get("approximate", "none"))


def hard_sigmoid(node: Node, values: Tensor) -> Tensor:
    """`alpha x + beta` between 0 and 1."""
    return torch.clamp(node.get("alpha", 0.2) * values + node.get("beta", 0.5), 0, 1)


def selu(node: Node, values: Tensor) -> Tensor:
    """With any two constants; PyTorch has only the usual ones."""
    alpha = node.get("alpha", 1.6732632423543772)
    return node.get("gamma", 1.0507009873554805) * functional.elu(values, alpha)  # type: ignore[no-any-return]


def where(node: Node, condition: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """One or the other; a mask that the graph holds lies on the CPU."""
    return torch.where(condition.to(left.device), left, right)


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda node, values: function(values)


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda node, left, right: function(left, right)


def _on_one_device(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """Of numbers that are no floats: such constants lie on the CPU."""

    def computed(node: Node, left: Tensor, right: Tensor) -> Tensor:
        device = right.device if left.device.type == "cpu" else left.device
        return function(left.to(device), right.to(device))

    return computed


def _any_number(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda node, *values: reduce(function, values)


ELEMENTWISE: Mapping[str, Operator] = {
    "Abs": _unary(torch.abs),
    "Add": _binary(torch.add),
    "And": _on_one_device(torch.logical_and),
    "Cast": cast,
    "Ceil": _unary(torch.ceil),
    "Celu": lambda node, values: functional.celu(values, node.get("alpha", 1.0)),
    "Clip": clip,
    "Cos": _unary(torch.cos),
    "Div": divide,
    "Elu": lambda node, values: functional.elu(values, node.get("alpha", 1.0)),
    "Equal": _on_one_device(torch.eq),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Floor": _unary(torch.floor),
    "Gelu": gelu,
    "Greater": _binary(torch.gt),
    "GreaterOrEqual": _binary(torch.ge),
    "HardSigmoid": hard_sigmoid,
    "HardSwish": _unary(functional.hardswish),
    "LeakyRelu": lambda node, values: functional.leaky_relu(values, node.get("alpha", 0.01)),
    "Less": _binary(torch.lt),
    "LessOrEqual": _binary(torch.le),
    "Log": _unary(torch.log),
    "LogSoftmax": log_softmax,
    "Max": _any_number(torch.maximum),
    "Mean": lambda node, *values: reduce(torch.add, values) / len(values),
    "Min": _any_number(torch.minimum),
    "Mish": _unary(functional.mish),
    "Mod": modulo,
    "Mul": _binary(torch.mul),
    "Neg": _unary(torch.neg),
    "Not": _unary(torch.logical_not),
    "Or": _on_one_device(torch.logical_or),
    "PRelu": p_relu,
    "Pow": _binary(torch.pow),
    "Reciprocal": _unary(torch.reciprocal),
    "Relu": _unary(torch.relu),
    "Selu": selu,
    "Sigmoid": _unary(torch.sigmoid),
    "Sign": _unary(torch.sign),
    "Sin": _unary(torch.sin),
    "Softmax": softmax,
    "Softplus": _unary(functional.softplus),
    "Softsign": _unary(functional.softsign),
    "Sqrt": _unary(torch.sqrt),
    "Sub": _binary(torch.sub),
    "Sum": _any_number(torch.add),
    "Swish": lambda node, values: values * torch.sigmoid(node.get("alpha", 1.0) * values),
    "Tanh": _unary(torch.tanh),
    "ThresholdedRelu": lambda node, values: torch.where(
        values > node.get("alpha", 1.0), values, torch.zeros_like(values)
    ),
    "Where": where,
}
