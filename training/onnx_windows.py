"""Where the windows of ONNX's convolutions and pools lie: padding of every kind."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from training.onnx_node import Node


def sizes_of(node: Node, name: str, count: int, default: int = 1) -> list[int]:
    """An attribute with a number for each spatial axis."""
    found: list[int] | None = node.get(name)
    return list(found) if found else [default] * count


def pads_of(node: Node, images: Tensor, kernel: Sequence[int]) -> tuple[list[int], list[int]]:
    """Padding before and after, for each spatial axis."""
    count = len(kernel)
    mode = node.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID"):
        pads = node.get("pads") if mode == "NOTSET" else None
        pads = list(pads) if pads else [0] * (2 * count)
        return pads[:count], pads[count:]
    strides, dilations = sizes_of(node, "strides", count), sizes_of(node, "dilations", count)
    before, after = [], []
    for axis, (window, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True)):
        size = images.shape[2 + axis]
        reach = dilation * (window - 1) + 1
        total = max(0, (-(-size // stride) - 1) * stride + reach - size)
        less, more = total // 2, total - total // 2
        # SAME_UPPER puts the odd pixel behind, SAME_LOWER before.
        before.append(less if mode == "SAME_UPPER" else more)
        after.append(more if mode == "SAME_UPPER" else less)
    return before, after


def padded(images: Tensor, before: Sequence[int], after: Sequence[int], value: float) -> Tensor:
    """The images with a border."""
    if not any(before) and not any(after):
        return images
    # PyTorch counts from the last axis on.
    pairs = [size for pair in reversed(list(zip(before, after, strict=True))) for size in pair]
    return functional.pad(images, pairs, value=value)


def room_for_last(
    node: Node, images: Tensor, kernel: Sequence[int], before: list[int], after: list[int]
) -> list[int]:
    """Padding after the image that `ceil_mode` adds, so that the last window is whole."""
    if not node.get("ceil_mode", 0):
        return [0] * len(kernel)
    strides, dilations = (sizes_of(node, name, len(kernel)) for name in ("strides", "dilations"))
    extra = []
    for axis, window in enumerate(kernel):
        reach = dilations[axis] * (window - 1) + 1
        size = images.shape[2 + axis] + before[axis]
        steps = -(-(size + after[axis] - reach) // strides[axis])
        # A window that begins behind the image and what lies before it does not count.
        if steps * strides[axis] >= images.shape[2 + axis] + before[axis]:
            steps -= 1
        extra.append(max(0, steps * strides[axis] + reach - size - after[axis]))
    return extra


def counted(images: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor:
    """Ones of the images' size (1, 1, ...), with a border of zeros."""
    ones = torch.ones(1, 1, *images.shape[2:], dtype=images.dtype, device=images.device)
    return padded(ones, before, after, 0.0)
