"""Each operator of the importer against onnxruntime: a row in `onnx_rows`, or a chain here."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.training.onnx_models import computed, floats, model_of
from tests.training.onnx_rows import ROWS, whole
from tests.training.second_device import SECOND, SecondDevice, moved
from training.onnx_importer import OPERATORS, ImportedGraph


def drawn(shape: tuple[int, ...], low: float) -> tuple[np.ndarray[Any, Any], torch.Tensor]:
    """Values for onnxruntime, and the same as a tensor that takes gradients."""
    values = np.random.default_rng(1).uniform(low, 2, shape).astype(np.float32)
    return values, torch.from_numpy(values.copy()).requires_grad_()


@pytest.mark.parametrize(("content", "shape", "low", "flows"), ROWS)
def test_an_operator_gives_what_onnxruntime_gives(
    content: bytes, shape: tuple[int, ...], low: float, flows: bool
) -> None:
    values, images = drawn(shape, low)
    found = ImportedGraph(content)(images)
    np.testing.assert_allclose(found.detach(), computed(content, values), atol=1e-5, rtol=1e-5)
    # An uneven sum: a mean or a softmax has no gradient under an even one.
    (found * torch.linspace(1, 2, found.numel()).reshape(found.shape)).sum().backward()
    assert images.grad is not None and bool(torch.isfinite(images.grad).all())
    assert bool(images.grad.any()) == flows


@pytest.mark.parametrize(("content", "shape", "low", "flows"), ROWS)
def test_an_operator_gives_float32_under_autocast_too(
    content: bytes, shape: tuple[int, ...], low: float, flows: bool
) -> None:
    values, images = drawn(shape, low)
    with torch.autocast("cpu", torch.bfloat16):
        found = ImportedGraph(content)(images)
    expected = computed(content, values)
    assert found.dtype == torch.float32
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found.detach(), expected, atol=0.03 * scale, rtol=0)
    found.sum().backward()
    assert images.grad is not None and images.grad.dtype == torch.float32


def test_products_mix_with_what_has_all_digits() -> None:
    content = model_of(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[1, 1]),
            helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["y"]),
        ],
        ("N", 3, 6, 5),
        {
            "w": np.ones((2, 3, 1, 1), np.float32),
            **{name: np.ones(2, np.float32) for name in "sbmv"},
        },
    )
    images = torch.rand(4, 3, 6, 5)
    with torch.autocast("cpu", torch.bfloat16):
        found = ImportedGraph(content)(images)
    expected = torch.from_numpy(computed(content, images.numpy()))
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0.02)


def chain(*nodes: Any, constants: dict[str, Any] | None = None, opset: int = 18) -> bytes:
    """Nodes `(operator, inputs, output, attributes)` from `x` to `y`."""
    protos = [
        helper.make_node(operator, inputs.split(), output.split(), **attributes)
        for operator, inputs, output, attributes in nodes
    ]
    return model_of(protos, ("N", 3, 6, 5), constants or {}, opset=opset)


CHAINS = {
    # What exporters make of `x.view(x.size(0), -1)`.
    "view": chain(
        ("Shape", "x", "sizes", {}),
        ("Gather", "sizes zero", "count", {"axis": 0}),
        ("Unsqueeze", "count axis", "row", {}),
        ("Concat", "row rest", "shape", {"axis": 0}),
        ("Reshape", "x shape", "y", {}),
        constants={"zero": np.int64(0), "axis": whole(0), "rest": whole(-1)},
    ),
    "part of a shape": chain(
        ("Shape", "x", "sizes", {"start": 1, "end": -1}),
        ("Cast", "sizes", "floats", {"to": TensorProto.FLOAT}),
        ("ReduceProd", "floats", "product", {"keepdims": 0}),
        ("Div", "x product", "y", {}),
    ),
    "half of the size": chain(
        ("Shape", "x", "sizes", {}),
        ("Div", "sizes halves", "half", {}),
        ("ConstantOfShape", "half", "ones", {"value": numpy_helper.from_array(floats([1]))}),
        ("ReduceSum", "ones", "count", {"keepdims": 0}),
        ("Mul", "x count", "y", {}),
        constants={"halves": whole(1, 1, 2, 2)},
    ),
    "ones of that shape": chain(
        ("Shape", "x", "sizes", {}),
        ("ConstantOfShape", "sizes", "ones", {"value": numpy_helper.from_array(floats([1]))}),
        ("Add", "x ones", "y", {}),
    ),
    "number of elements": chain(
        ("Size", "x", "count", {}),
        ("Cast", "count", "number", {"to": TensorProto.FLOAT}),
        ("Div", "x number", "y", {}),
    ),
    "pieces": chain(
        ("Split", "x", "a b", {"axis": 2, "num_outputs": 2}),
        ("Sub", "a b", "y", {}),
    ),
    "unequal pieces": chain(
        ("Split", "x sizes", "a b", {"axis": 1}),
        ("Add", "a b", "y", {}),
        constants={"sizes": whole(1, 2)},
    ),
    "a choice": chain(
        ("Greater", "x zero", "over", {}),
        ("Less", "x one", "under", {}),
        ("And", "over under", "between", {}),
        ("Where", "between x zero", "y", {}),
        constants={"zero": np.float32(0), "one": np.float32(1)},
    ),
    "comparisons": chain(
        ("GreaterOrEqual", "x zero", "over", {}),
        ("LessOrEqual", "x minus", "under", {}),
        ("Or", "over under", "outside", {}),
        ("Not", "outside", "inside", {}),
        ("Equal", "inside no", "again", {}),
        ("Where", "again x zero", "y", {}),
        constants={"zero": np.float32(0), "minus": np.float32(-1), "no": np.bool_(False)},
    ),
    "a mask": chain(
        ("Equal", "numbers three", "third", {}),
        ("Where", "third x zero", "few", {}),
        ("Greater", "x zero", "over", {}),
        ("Or", "over mask", "left", {}),
        ("Equal", "left mask", "again", {}),
        ("Where", "again x few", "y", {}),
        constants={
            "numbers": np.arange(30).reshape(6, 5),
            "three": np.int64(3),
            "mask": np.tri(6, 5, dtype=np.bool_),
            "zero": np.float32(0),
        },
    ),
    "a range": chain(
        ("Constant", "", "start", {"value_int": 0}),
        ("Constant", "", "step", {"value_int": 1}),
        ("Range", "start limit step", "places", {}),
        ("Gather", "x places", "y", {"axis": 3}),
        constants={"limit": np.int64(3)},
    ),
    "swish": chain(("Swish", "x", "y", {"alpha": 1.5}), opset=24),
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("count", [1, 4])
def test_shapes_are_computed_for_every_batch(name: str, count: int) -> None:
    values = np.random.default_rng(2).uniform(-2, 2, (count, 3, 6, 5)).astype(np.float32)
    images = torch.from_numpy(values.copy()).requires_grad_()
    found = ImportedGraph(CHAINS[name])(images)
    np.testing.assert_allclose(found.detach(), computed(CHAINS[name], values), atol=1e-5)
    found.square().sum().backward()
    assert images.grad is not None and bool(images.grad.any())


@pytest.mark.parametrize("name", CHAINS)
def test_shapes_are_computed_for_images_on_another_device(name: str) -> None:
    graph = moved(ImportedGraph(CHAINS[name]))
    with SecondDevice():  # type: ignore[no-untyped-call]
        assert graph(torch.rand(2, 3, 6, 5).to(SECOND)).device == SECOND


def test_every_operator_has_a_row() -> None:
    tried = {param.id.split("-")[0] for param in ROWS}
    for content in CHAINS.values():
        tried |= {node.op_type for node in onnx.load_from_string(content).graph.node}
    assert OPERATORS.keys() - tried == set()
