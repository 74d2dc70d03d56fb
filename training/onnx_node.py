"""One node of an ONNX graph, as the operators of the importer see it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor


@dataclass(frozen=True)
class Node:
    """A node without its surroundings.

    Attributes:
        operator: its name, with the domain before it where it is not ONNX's own.
        opset: version of that domain.
        inputs: names; empty where an optional input is left out.
        outputs: names, as `inputs`.
        attributes: plain values; tensors as PyTorch's.
    """

    operator: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or the default where it is left out."""
        return self.attributes.get(name, default)


# Takes the node and its inputs, None for those left out; gives its output or outputs.
Operator = Callable[..., Tensor | tuple[Tensor, ...]]


class UnsupportedNode(ValueError):
    """A node with a setting that the importer does not know; the message names it."""


def node_of(proto: onnx.NodeProto, opsets: Mapping[str, int]) -> Node:
    """The node of its serialised form."""
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    return Node(
        operator=f"{domain}.{proto.op_type}" if domain else proto.op_type,
        opset=opsets.get(domain, 1),
        inputs=tuple(proto.input),
        outputs=tuple(proto.output),
        attributes={item.name: _plain(item) for item in proto.attribute},
    )


def tensor_of(proto: onnx.TensorProto) -> Tensor:
    """A constant of the graph."""
    # A copy: the array may be a read-only view of the file.
    return torch.from_numpy(np.array(numpy_helper.to_array(proto)))


def ints(values: Tensor | None) -> list[int] | None:
    """A tensor of sizes or axes as plain numbers."""
    return None if values is None else [int(value) for value in values.flatten().tolist()]


def axes_of(node: Node, axes: Tensor | None, default: list[int] | None = None) -> list[int] | None:
    """The axes that a node works on: an input in newer opsets, an attribute in older ones."""
    if axes is not None:
        return ints(axes)
    found: list[int] | None = node.get("axes", default)
    return found


def _plain(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return tensor_of(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
        return list(value)
    return value
