"""ONNX operators that reduce axes to a number."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from training.onnx_node import Node, Operator, UnsupportedNode, axes_of

Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _product(values: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % values.dim() for axis in axes), reverse=True):
        values = values.prod(axis, keepdim=keep)
    return values


def _norm_1(values: Tensor, axes: list[int], keep: bool) -> Tensor:
    return values.abs().sum(axes, keepdim=keep)


def _norm_2(values: Tensor, axes: list[int], keep: bool) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(values, 2, axes, keepdim=keep)
    return length


def _reducing(reduction: Reduction) -> Operator:
    """The operator of a reduction; the axes are an input in newer opsets."""

    def operator(node: Node, values: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = axes_of(node, axes)
        if not chosen:
            if node.get("noop_with_empty_axes", 0):
                return values
            chosen = list(range(values.dim()))
        return reduction(values, chosen, bool(node.get("keepdims", 1)))

    return operator


def normalizer(node: Node, values: Tensor) -> Tensor:
    """scikit-learn's: each row divided by its largest, its sum or its length."""
    kind = node.get("norm", "MAX")
    if kind == "MAX":
        size = values.abs().amax(1, keepdim=True)
    elif kind == "L1":
        size = values.abs().sum(1, keepdim=True)
    elif kind == "L2":
        size = torch.linalg.vector_norm(values, 2, 1, keepdim=True)
    else:
        raise UnsupportedNode(f"ai.onnx.ml.Normalizer by {kind}")
    # A row of zeros stays one.
    return values / torch.where(size == 0, torch.ones_like(size), size)


def scaler(node: Node, values: Tensor) -> Tensor:
    """scikit-learn's: `(x - offset) scale`, of each column or of all."""
    offset, scale = (values.new_tensor(node.get(name)) for name in ("offset", "scale"))
    return (values - offset) * scale


def lp_normalization(node: Node, values: Tensor) -> Tensor:
    """Divided by the norm along one axis."""
    axis, order = node.get("axis", -1), node.get("p", 2)
    length: Tensor = torch.linalg.vector_norm(values, order, axis, keepdim=True)
    return values / length


REDUCTIONS: Mapping[str, Operator] = {
    "LpNormalization": lp_normalization,
    "ReduceL1": _reducing(_norm_1),
    "ReduceL2": _reducing(_norm_2),
    "ReduceLogSumExp": _reducing(lambda v, axes, keep: torch.logsumexp(v, axes, keepdim=keep)),
    "ReduceMax": _reducing(lambda v, axes, keep: torch.amax(v, axes, keepdim=keep)),
    "ReduceMean": _reducing(lambda v, axes, keep: torch.mean(v, axes, keepdim=keep)),
    "ReduceMin": _reducing(lambda v, axes, keep: torch.amin(v, axes, keepdim=keep)),
    "ReduceProd": _reducing(_product),
    "ReduceSum": _reducing(lambda v, axes, keep: torch.sum(v, axes, keepdim=keep)),
    "ReduceSumSquare": _reducing(lambda v, axes, keep: v.square().sum(axes, keepdim=keep)),
    "ai.onnx.ml.Normalizer": normalizer,
    "ai.onnx.ml.Scaler": scaler,
}
