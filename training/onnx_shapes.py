"""ONNX operators that move, cut and join tensors, or compute their shapes.

Shapes are computed on the CPU whatever the device, so that no step waits for a GPU.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.onnx_node import Node, Operator, UnsupportedNode, axes_of, ints


def constant(node: Node) -> Tensor:
    """A tensor, or plain numbers."""
    value = node.get("value")
    if value is None:
        for name, dtype in (("value_float", torch.float32), ("value_int", torch.int64)):
            for plain in (name, f"{name}s"):
                if node.get(plain) is not None:
                    return torch.tensor(node.get(plain), dtype=dtype)
        raise UnsupportedNode(f"Constant of {sorted(node.attributes)}")
    found: Tensor = value
    return found


def constant_of_shape(node: Node, shape: Tensor) -> Tensor:
    """One number everywhere."""
    value = node.get("value", torch.zeros(1))
    return torch.full(ints(shape) or [], value.item(), dtype=value.dtype)


def flatten(node: Node, values: Tensor) -> Tensor:
    """Two axes: those before the given one, and the rest."""
    axis = node.get("axis", 1)
    if axis < 0:
        axis += values.dim()
    rows = 1
    for size in values.shape[:axis]:
        rows *= size
    return values.reshape(rows, -1)


def reshape(node: Node, values: Tensor, shape: Tensor) -> Tensor:
    """A size of 0 stays what it is, -1 is the rest."""
    sizes = ints(shape) or []
    if not node.get("allowzero", 0):
        sizes = [values.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return values.reshape(sizes)


def transpose(node: Node, values: Tensor) -> Tensor:
    """Axes in another order; reversed if none is given."""
    return values.permute(node.get("perm") or list(reversed(range(values.dim()))))


def squeeze(node: Node, values: Tensor, axes: Tensor | None = None) -> Tensor:
    """Without axes of size 1, all or those given."""
    chosen = axes_of(node, axes)
    return values.squeeze() if chosen is None else values.squeeze(tuple(chosen))


def unsqueeze(node: Node, values: Tensor, axes: Tensor | None = None) -> Tensor:
    """With new axes of size 1 at the given places of the result."""
    chosen = axes_of(node, axes) or []
    rank = values.dim() + len(chosen)
    for axis in sorted(axis % rank for axis in chosen):
        values = values.unsqueeze(axis)
    return values


def slice_(
    node: Node,
    values: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    """Bounds are inputs from opset 10 on, attributes before."""
    first: list[int] = ints(starts) or node.get("starts", [])
    last: list[int] = ints(ends) or node.get("ends", [])
    strides = ints(steps) or [1] * len(first)
    for axis, start, end, step in zip(
        axes_of(node, axes) or range(len(first)), first, last, strides, strict=False
    ):
        if step > 0:
            index: list[Any] = [slice(None)] * values.dim()
            index[axis] = slice(start, end, step)
            values = values[tuple(index)]
            continue
        # PyTorch does not walk backwards.
        places = range(*slice(start, end, step).indices(values.shape[axis]))
        chosen = torch.tensor(list(places), dtype=torch.int64, device=values.device)
        values = values.index_select(axis % values.dim(), chosen)
    return values


def split(node: Node, values: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    """Into pieces of the given sizes, or of one size with a smaller last one."""
    axis = node.get("axis", 0)
    pieces: list[int] | int | None = ints(sizes) or node.get("split")
    if pieces is None:
        count = node.get("num_outputs") or len(node.outputs)
        pieces = -(-values.shape[axis] // count)
    return torch.split(values, pieces, axis)


def gather(node: Node, values: Tensor, indices: Tensor) -> Tensor:
    """The entries of one axis at the indices, which may have any shape."""
    axis = node.get("axis", 0) % values.dim()
    size = values.shape[axis]
    places = indices.to(values.device, torch.int64)
    flat = torch.where(places < 0, places + size, places).flatten()
    shape = (*values.shape[:axis], *indices.shape, *values.shape[axis + 1 :])
    return values.index_select(axis, flat).reshape(shape)


def gather_nd(node: Node, values: Tensor, indices: Tensor) -> Tensor:
    """The entries, or pieces, at places that the last axis of the indices names."""
    if node.get("batch_dims", 0):
        raise UnsupportedNode("GatherND of batches")
    return values[_places(values, indices)]


def scatter_nd(node: Node, values: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """Other entries, or pieces, at such places."""
    if node.get("reduction", "none") != "none":
        raise UnsupportedNode("ScatterND that adds")
    return values.index_put(_places(values, indices), updates)


def _places(values: Tensor, indices: Tensor) -> tuple[Tensor, ...]:
    return indices.to(values.device, torch.int64).unbind(-1)


def expand(node: Node, values: Tensor, shape: Tensor) -> Tensor:
    """Broadcast in both directions."""
    return values.expand(np.broadcast_shapes(values.shape, tuple(ints(shape) or [])))


def shape_(node: Node, values: Tensor) -> Tensor:
    """The sizes of the axes, or of some of them."""
    return torch.tensor(list(values.shape[node.get("start", 0) : node.get("end")]))


def depth_to_space(node: Node, images: Tensor) -> Tensor:
    """Channels become pixels."""
    block = node.get("blocksize")
    count, channels, height, width = images.shape
    rest = channels // block**2
    if node.get("mode", "DCR") == "DCR":
        parts = images.reshape(count, block, block, rest, height, width)
        parts = parts.permute(0, 3, 4, 1, 5, 2)
    else:
        parts = images.reshape(count, rest, block, block, height, width)
        parts = parts.permute(0, 1, 4, 2, 5, 3)
    return parts.reshape(count, rest, height * block, width * block)


def space_to_depth(node: Node, images: Tensor) -> Tensor:
    """Pixels become channels."""
    block = node.get("blocksize")
    count, channels, height, width = images.shape
    parts = images.reshape(count, channels, height // block, block, width // block, block)
    parts = parts.permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(count, channels * block**2, height // block, width // block)


def range_(node: Node, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """Evenly spaced numbers."""
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def identity(node: Node, values: Tensor, *more: Tensor | None) -> Tensor:
    """What it was; dropout does nothing outside of training."""
    return values


SHAPES: Mapping[str, Operator] = {
    "Concat": lambda node, *values: torch.cat(values, node.get("axis")),
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "DepthToSpace": depth_to_space,
    "Dropout": identity,
    "Expand": expand,
    "Flatten": flatten,
    "Gather": gather,
    "GatherND": gather_nd,
    "Identity": identity,
    "Range": range_,
    "Reshape": reshape,
    "ScatterND": scatter_nd,
    "Shape": shape_,
    "Size": lambda node, values: torch.tensor(values.numel()),
    "Slice": slice_,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Squeeze": squeeze,
    "Tile": lambda node, values, repeats: values.repeat(ints(repeats) or []),
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
