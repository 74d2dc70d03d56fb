"""ONNX operators with weights or windows: convolutions, pools, norms, matrix products."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from training.onnx_node import Node, Operator, UnsupportedNode
from training.onnx_windows import counted, padded, pads_of, room_for_last, sizes_of

# By the number of axes of the weights.
_CONVOLUTIONS: Mapping[int, Any] = {
    3: functional.conv1d,
    4: functional.conv2d,
    5: functional.conv3d,
}
_TRANSPOSED: Mapping[int, Any] = {
    3: functional.conv_transpose1d,
    4: functional.conv_transpose2d,
    5: functional.conv_transpose3d,
}
_MAX_POOLS: Mapping[int, Any] = {
    1: functional.max_pool1d,
    2: functional.max_pool2d,
    3: functional.max_pool3d,
}
_AVERAGE_POOLS: Mapping[int, Any] = {
    1: functional.avg_pool1d,
    2: functional.avg_pool2d,
    3: functional.avg_pool3d,
}


def conv(node: Node, images: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A convolution; unequal padding is laid around the images first."""
    kernel = list(weight.shape[2:])
    before, after = pads_of(node, images, kernel)
    padding = before
    if before != after:
        images, padding = padded(images, before, after, 0.0), [0] * len(kernel)
    result: Tensor = _CONVOLUTIONS[weight.dim()](
        images,
        weight,
        bias,
        stride=sizes_of(node, "strides", len(kernel)),
        padding=padding,
        dilation=sizes_of(node, "dilations", len(kernel)),
        groups=node.get("group", 1),
    )
    return result


def conv_transpose(
    node: Node, images: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """A transposed convolution with padding that is written out."""
    if node.get("output_shape") or node.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise UnsupportedNode("ConvTranspose with output_shape or auto_pad")
    kernel = list(weight.shape[2:])
    before, after = pads_of(node, images, kernel)
    whole: Tensor = _TRANSPOSED[weight.dim()](
        images,
        weight,
        bias,
        stride=sizes_of(node, "strides", len(kernel)),
        output_padding=sizes_of(node, "output_padding", len(kernel), 0),
        dilation=sizes_of(node, "dilations", len(kernel)),
        groups=node.get("group", 1),
    )
    # Negative padding cuts.
    return padded(whole, [-size for size in before], [-size for size in after], 0.0)


def max_pool(node: Node, images: Tensor) -> Tensor:
    """The largest of each window."""
    kernel = node.get("kernel_shape")
    before, after = pads_of(node, images, kernel)
    extra = room_for_last(node, images, kernel, before, after)
    after = [size + more for size, more in zip(after, extra, strict=True)]
    result: Tensor = _MAX_POOLS[len(kernel)](
        padded(images, before, after, float("-inf")),
        kernel,
        stride=sizes_of(node, "strides", len(kernel)),
        dilation=sizes_of(node, "dilations", len(kernel)),
    )
    return result


def average_pool(node: Node, images: Tensor) -> Tensor:
    """The mean of each window, of the image alone or of its padding too."""
    kernel = node.get("kernel_shape")
    if any(size != 1 for size in sizes_of(node, "dilations", len(kernel))):
        raise UnsupportedNode("AveragePool with dilations")
    before, after = pads_of(node, images, kernel)
    extra = room_for_last(node, images, kernel, before, after)
    beyond = [size + more for size, more in zip(after, extra, strict=True)]
    pool, strides = _AVERAGE_POOLS[len(kernel)], sizes_of(node, "strides", len(kernel))
    means: Tensor = pool(padded(images, before, beyond, 0.0), kernel, stride=strides)
    if not any(before) and not any(beyond):
        return means
    none = [0] * len(kernel)
    if node.get("count_include_pad", 0):
        ones = counted(padded(images, before, after, 0.0), none, extra)
    else:
        ones = counted(images, before, beyond)
    share: Tensor = pool(ones, kernel, stride=strides)
    return means / share


def batch_norm(
    node: Node, images: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    """With the statistics of the training."""
    if node.get("training_mode", 0):
        raise UnsupportedNode("BatchNormalization in training mode")
    return functional.batch_norm(images, mean, variance, scale, bias, eps=node.get("epsilon", 1e-5))


def instance_norm(node: Node, images: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Each channel of each image by itself."""
    return functional.instance_norm(images, weight=scale, bias=bias, eps=node.get("epsilon", 1e-5))


def layer_norm(node: Node, values: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """Over all axes from the given one on."""
    axis = node.get("axis", -1) % values.dim()
    shape = list(values.shape[axis:])
    epsilon = node.get("epsilon", 1e-5)
    normal = functional.layer_norm(values, shape, eps=epsilon) * scale
    return normal if bias is None else normal + bias


def group_norm(node: Node, images: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """The scale is of a channel from opset 21 on, of a group before."""
    groups = node.get("num_groups")
    if node.opset < 21:
        repeats = images.shape[1] // groups
        scale, bias = scale.repeat_interleave(repeats), bias.repeat_interleave(repeats)
    return functional.group_norm(images, groups, scale, bias, node.get("epsilon", 1e-5))


def local_response_norm(node: Node, images: Tensor) -> Tensor:
    """Divided by the squares of neighbouring channels."""
    return functional.local_response_norm(
        images,
        node.get("size"),
        alpha=node.get("alpha", 1e-4),
        beta=node.get("beta", 0.75),
        k=node.get("bias", 1.0),
    )


def gemm(node: Node, left: Tensor, right: Tensor, added: Tensor | None = None) -> Tensor:
    """`alpha A B + beta C`."""
    left = left.t() if node.get("transA", 0) else left
    right = right.t() if node.get("transB", 0) else right
    product = node.get("alpha", 1.0) * (left @ right)
    return product if added is None else product + node.get("beta", 1.0) * added  # type: ignore[no-any-return]


def _global(images: Tensor) -> list[int]:
    return list(range(2, images.dim()))


def _product(operator: Callable[..., Tensor]) -> Operator:
    """A product whose result has its factors' digits, also where autocast computes it with fewer.

    An operator that mixes it with a constant of the graph might refuse to otherwise.
    """

    def compute(node: Node, first: Tensor, *others: Tensor | None) -> Tensor:
        return operator(node, first, *others).to(first.dtype)

    return compute


LAYERS: Mapping[str, Operator] = {
    "AveragePool": average_pool,
    "BatchNormalization": batch_norm,
    "Conv": _product(conv),
    "ConvTranspose": _product(conv_transpose),
    "Einsum": _product(lambda node, *values: torch.einsum(node.get("equation"), *values)),
    "Gemm": _product(gemm),
    "GlobalAveragePool": lambda node, images: images.mean(_global(images), keepdim=True),
    "GlobalMaxPool": lambda node, images: images.amax(_global(images), keepdim=True),
    "GroupNormalization": group_norm,
    "InstanceNormalization": instance_norm,
    "LRN": local_response_norm,
    "LayerNormalization": layer_norm,
    "MatMul": _product(lambda node, left, right: left @ right),
    "MaxPool": max_pool,
}
