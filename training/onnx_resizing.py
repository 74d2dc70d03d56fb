"""ONNX operators that change the size of images: borders and interpolation."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.onnx_node import Node, Operator, UnsupportedNode, axes_of, ints

_BORDERS = {"reflect": "reflect", "edge": "replicate"}


def pad(
    node: Node,
    values: Tensor,
    sizes: Tensor | None = None,
    value: Tensor | None = None,
    axes: Tensor | None = None,
) -> Tensor:
    """Sizes are an input from opset 11 on, an attribute before; negative ones cut."""
    given: list[int] = (ints(sizes) or []) if sizes is not None else node.get("pads")
    chosen = ints(axes) if axes is not None else list(range(len(given) // 2))
    half = len(given) // 2
    before, after = [0] * values.dim(), [0] * values.dim()
    for place, axis in enumerate(chosen or []):
        before[axis], after[axis] = given[place], given[half + place]
    mode = node.get("mode", "constant")
    fill = float(value) if value is not None else node.get("value", 0.0)
    if mode == "constant":
        return functional.pad(values, _from_last(before, after), value=fill)
    if mode not in _BORDERS or any(before[:2]) or any(after[:2]):
        raise UnsupportedNode(f"Pad of mode {mode}, or by {mode} beyond height and width")
    return functional.pad(values, _from_last(before[2:], after[2:]), mode=_BORDERS[mode])


def _from_last(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """Pairs of sizes as PyTorch wants them, from the last axis on."""
    pairs = list(zip(before, after, strict=True))
    return [size for pair in reversed(pairs) for size in pair]


def resize(
    node: Node,
    images: Tensor,
    region: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """Height and width by nearest or linear interpolation."""
    if node.opset < 11:
        # Opset 10 has the scales second.
        return _upsampled(node, images, region)
    axes = axes_of(node, None) or list(range(images.dim()))
    if sizes is not None and sizes.numel():
        wanted = dict(zip(axes, ints(sizes) or [], strict=True))
        factors = {axis: size / images.shape[axis] for axis, size in wanted.items()}
    elif scales is not None:
        factors = dict(zip(axes, scales.tolist(), strict=True))
        wanted = {axis: _scaled(images.shape[axis], by) for axis, by in factors.items()}
    else:
        raise UnsupportedNode("Resize without scales and sizes")
    if node.get("keep_aspect_ratio_policy", "stretch") != "stretch" or node.get("antialias", 0):
        raise UnsupportedNode("Resize that keeps the aspect ratio or smooths")
    if any(wanted.get(axis, images.shape[axis]) != images.shape[axis] for axis in (0, 1)):
        raise UnsupportedNode("Resize of batch or channels")
    places = node.get("coordinate_transformation_mode", "half_pixel")
    return _interpolated(node, images, wanted, factors, places)


def upsample(node: Node, images: Tensor, scales: Tensor | None = None) -> Tensor:
    """The older name of `Resize`."""
    return _upsampled(node, images, scales)


def _upsampled(node: Node, images: Tensor, scales: Tensor | None) -> Tensor:
    by = scales.tolist() if scales is not None else node.get("scales")
    factors = dict(enumerate(by))
    wanted = {axis: _scaled(images.shape[axis], factor) for axis, factor in factors.items()}
    return _interpolated(node, images, wanted, factors, "asymmetric")


def _scaled(size: int, factor: float) -> int:
    """A size by a scale, in float32 as onnxruntime has it: 0.7 of 10 are 7, not 6."""
    return int(np.float32(size) * np.float32(factor))


def _interpolated(
    node: Node,
    images: Tensor,
    wanted: Mapping[int, int],
    factors: Mapping[int, float],
    places: str,
) -> Tensor:
    """Each axis by itself: linear interpolation is separable, and nearest is as well."""
    mode = node.get("mode", "nearest")
    if mode not in ("nearest", "linear"):
        raise UnsupportedNode(f"Resize of mode {mode}")
    if all(images.shape[axis] == size for axis, size in wanted.items()):
        return images  # whatever the scale
    for axis in range(2, images.dim()):
        old, new = images.shape[axis], wanted.get(axis, images.shape[axis])
        if old == new and factors.get(axis, 1.0) == 1.0:
            continue
        source = _sources(places, old, new, float(np.float32(factors[axis])))
        if mode == "nearest":
            rounded = _rounded(source, node.get("nearest_mode", "round_prefer_floor"), node.opset)
            chosen = rounded.clamp(0, old - 1).long().to(images.device)
            images = images.index_select(axis, chosen)
            continue
        source = source.clamp(0, old - 1)
        low = source.floor().long()
        high = (low + 1).clamp(max=old - 1)
        share = (source - low).to(images.dtype).to(images.device)
        share = share.reshape(-1, *[1] * (images.dim() - axis - 1))
        low, high = low.to(images.device), high.to(images.device)
        images = images.index_select(axis, low) * (1 - share) + (
            images.index_select(axis, high) * share
        )
    return images


def _sources(places: str, old: int, new: int, factor: float) -> Tensor:
    """Where in the old axis each place of the new one lies; in float32 as in onnxruntime."""
    place = torch.arange(new, dtype=torch.float32)
    if places == "asymmetric":
        return place / factor
    if places == "align_corners":
        return place * (old - 1) / (new - 1) if new > 1 else torch.zeros_like(place)
    if places in ("half_pixel", "pytorch_half_pixel"):
        if places == "pytorch_half_pixel" and new == 1:
            return torch.zeros_like(place)
        return (place + 0.5) / factor - 0.5
    raise UnsupportedNode(f"Resize with {places}")


def _rounded(source: Tensor, mode: str, opset: int) -> Tensor:
    """The nearest place; opset 10 and its elders round down."""
    if opset < 11 or mode == "floor":
        return source.floor()
    if mode == "ceil":
        return source.ceil()
    if mode == "round_prefer_ceil":
        return (source + 0.5).floor()
    return (source - 0.5).ceil()


RESIZING: Mapping[str, Operator] = {"Pad": pad, "Resize": resize, "Upsample": upsample}
