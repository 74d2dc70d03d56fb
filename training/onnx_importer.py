"""An ONNX graph as a PyTorch module, so that attacks have gradients through it.

It knows the operators that image classifiers are made of, from opset 9 on. Only what the wanted
output depends on is imported: labels, maps and other by-products of a graph are left out.
"""

import hashlib
from collections.abc import Mapping, Sequence

import onnx
import torch
from onnx import TensorProto, inliner
from torch import Tensor, nn

from training.onnx_elementwise import ELEMENTWISE
from training.onnx_layers import LAYERS
from training.onnx_node import Node, Operator, UnsupportedNode, node_of, tensor_of
from training.onnx_reductions import REDUCTIONS
from training.onnx_resizing import RESIZING
from training.onnx_shapes import SHAPES

OPERATORS: Mapping[str, Operator] = {**ELEMENTWISE, **LAYERS, **REDUCTIONS, **RESIZING, **SHAPES}


class UnsupportedGraph(ValueError):
    """A graph that cannot be made differentiable.

    Attributes:
        operators: those that the importer lacks, or the settings of one that it does not know.
    """

    def __init__(self, operators: Sequence[str]) -> None:
        self.operators = tuple(operators)
        super().__init__(f"no gradients are known for its operators {', '.join(self.operators)}")


class ImportedGraph(nn.Module):
    """What an ONNX graph computes, for one of its outputs.

    Weights are buffers: they move with the module and nothing trains them.

    Args:
        content: the ONNX file.
        output: name of the output, or of any tensor within; the graph's first if not given.

    Raises:
        UnsupportedGraph: operators are missing; all are named.
        ValueError: the file is no ONNX graph of one input.
    """

    digest: Tensor  # of the file: plain numbers among the constants are no buffers

    def __init__(self, content: bytes, output: str | None = None) -> None:
        super().__init__()
        model = parsed(content)
        self.input = input_of(model)
        self.output = output or model.graph.output[0].name
        sha256 = hashlib.sha256(content).digest()
        self.register_buffer("digest", torch.frombuffer(bytearray(sha256), dtype=torch.uint8))
        opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}
        nodes = [node_of(proto, opsets) for proto in needed(model, self.output)]
        lacking = sorted({node.operator for node in nodes} - OPERATORS.keys())
        if lacking:
            raise UnsupportedGraph(lacking)
        used = {name for node in nodes for name in node.inputs} | {self.output}
        constants = {i.name: tensor_of(i) for i in model.graph.initializer if i.name in used}
        self._nodes = _folded(nodes, constants)
        self._keep(constants)
        self._dead = self._last_uses()

    @property
    def computes_in_float16(self) -> bool:
        """Whether some of it does, which no two programs round alike."""
        casts = (node for node in self._nodes if node.operator == "Cast")
        return any(buffer.dtype == torch.float16 for buffer in self.buffers()) or any(
            node.get("to") == TensorProto.FLOAT16 for node in casts
        )

    def forward(self, images: Tensor) -> Tensor:
        """The output for a batch of the input."""
        values: dict[str, Tensor] = {**self._plain, self.input: images}
        for name, buffer in self._buffer_of.items():
            values[name] = self.get_buffer(buffer)
        for node, dead in zip(self._nodes, self._dead, strict=True):
            _run(node, values, images.device)
            for name in dead:
                del values[name]
        return values[self.output]

    def _keep(self, constants: Mapping[str, Tensor]) -> None:
        """Hold the constants that are still needed: floats as buffers, the others on the CPU."""
        used = {name for node in self._nodes for name in node.inputs} | {self.output}
        self._plain: dict[str, Tensor] = {}
        self._buffer_of: dict[str, str] = {}
        for name, value in constants.items():
            if name not in used:
                continue
            if value.is_floating_point():
                # ONNX's names may hold dots, a buffer's may not.
                self._buffer_of[name] = f"constant_{len(self._buffer_of)}"
                self.register_buffer(self._buffer_of[name], value)
            else:
                self._plain[name] = value

    def _last_uses(self) -> list[list[str]]:
        """For each node the values that nobody needs after it."""
        last = {name: place for place, node in enumerate(self._nodes) for name in node.inputs}
        last.pop(self.output, None)
        made = {name for node in self._nodes for name in node.outputs} | {self.input}
        dead: list[list[str]] = [[] for _ in self._nodes]
        for name, place in last.items():
            if name in made:
                dead[place].append(name)
        return dead


def parsed(content: bytes) -> onnx.ModelProto:
    """The model of a file, with its local functions written out.

    Raises:
        ValueError: it is none, or its weights lie in another file.
    """
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own class has no public name
        raise ValueError(f"is not an ONNX file: {error}") from error
    if not model.graph.output or not model.opset_import:
        raise ValueError("is not an ONNX file: it has no output")
    if any(item.data_location == onnx.TensorProto.EXTERNAL for item in model.graph.initializer):
        raise ValueError(
            "keeps its weights in another file; save it with them inside, as torch.onnx.export "
            "does with external_data=False"
        )
    return inliner.inline_local_functions(model) if model.functions else model


def input_of(model: onnx.ModelProto) -> str:
    """The name of the graph's only input.

    Raises:
        ValueError: it has several, or none.
    """
    weights = {item.name for item in model.graph.initializer}
    inputs = [item.name for item in model.graph.input if item.name not in weights]
    if len(inputs) != 1:
        raise ValueError(f"has the inputs {inputs}, wanted is one: the images")
    (name,) = inputs
    return str(name)


def needed(model: onnx.ModelProto, output: str) -> list[onnx.NodeProto]:
    """The nodes that an output depends on, in the graph's order."""
    wanted, found = {output}, []
    for node in reversed(model.graph.node):
        if wanted.intersection(node.output):
            found.append(node)
            wanted.update(name for name in node.input if name)
    return found[::-1]


def _folded(nodes: Sequence[Node], constants: dict[str, Tensor]) -> list[Node]:
    """The nodes that depend on the input; what the others give is added to the constants."""
    left = []
    for node in nodes:
        if all(not name or name in constants for name in node.inputs):
            with torch.no_grad():
                _run(node, constants, torch.device("cpu"))
        else:
            left.append(node)
    return left


def _run(node: Node, values: dict[str, Tensor], device: torch.device) -> None:
    """Compute one node's outputs into the values; floats lie on the device, whatever made them."""
    inputs = [values[name] if name else None for name in node.inputs]
    try:
        result = OPERATORS[node.operator](node, *inputs)
    except UnsupportedNode as error:
        raise UnsupportedGraph([str(error)]) from error
    results = [
        made.to(device) if made.is_floating_point() else made
        for made in (result if isinstance(result, tuple) else (result,))
    ]
    # Some operators have further outputs that nobody asked for, such as a mask.
    values.update(zip(node.outputs, results, strict=False))
