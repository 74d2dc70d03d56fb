from copy import deepcopy

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from tests.training.onnx_models import computed, floats, model_of
from tests.training.small_networks import SPEC, digit_images, small_networks
from training.export import export_onnx
from training.onnx_importer import ImportedGraph, UnsupportedGraph

NODES = [
    helper.make_node("Relu", ["x"], ["kept"]),
    helper.make_node("ArgMax", ["kept"], ["label"], axis=1),
    helper.make_node("Mul", ["kept", "two"], ["y"]),
    helper.make_node("Round", ["x"], ["rounded"]),
    helper.make_node("Bernoulli", ["rounded"], ["dice"]),
]
TWO = {"two": np.float32(2)}


def test_an_exported_network_comes_back() -> None:
    network = small_networks()[1]
    images = digit_images(7)[0]
    graph = ImportedGraph(export_onnx(network, "classifier", SPEC))
    torch.testing.assert_close(graph(images), network(images), atol=1e-4, rtol=1e-4)
    before = images.clone().requires_grad_()
    network(before).square().sum().backward()
    after = images.clone().requires_grad_()
    graph(after).square().sum().backward()
    assert before.grad is not None and after.grad is not None
    torch.testing.assert_close(after.grad, before.grad, atol=1e-3, rtol=1e-3)


def test_only_what_the_output_needs_is_imported() -> None:
    content = model_of(NODES, ("N", 3), TWO, outputs=("label", "y", "dice"))
    images = torch.tensor([[1.0, -2.0, 3.0]])
    assert ImportedGraph(content, "y")(images).tolist() == [[2, 0, 6]]
    assert ImportedGraph(content, "kept")(images).tolist() == [[1, 0, 3]]


def test_all_operators_that_are_lacking_are_named_at_once() -> None:
    content = model_of(NODES, ("N", 3), TWO, outputs=("label", "y", "dice"))
    with pytest.raises(UnsupportedGraph, match="Bernoulli, Round") as refused:
        ImportedGraph(content, "dice")
    assert refused.value.operators == ("Bernoulli", "Round")
    with pytest.raises(UnsupportedGraph, match="operators ArgMax"):
        ImportedGraph(content, "label")


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (helper.make_node("Resize", ["x", "", "two"], ["y"], mode="cubic"), "mode cubic"),
        (helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT8E4M3FN), "Cast to type 17"),
        (helper.make_node("Pad", ["x", "sizes"], ["y"], mode="wrap"), "Pad of mode wrap"),
        (
            helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 2]),
            "AveragePool with dilations",
        ),
    ],
    ids=["resize", "cast", "pad", "pool"],
)
def test_a_setting_that_is_not_known_is_named(node: onnx.NodeProto, reason: str) -> None:
    constants = {"two": floats([1, 1, 2, 2]), "sizes": np.zeros(8, np.int64)}
    graph = ImportedGraph(model_of([node], (1, 3, 4, 4), constants))
    with pytest.raises(UnsupportedGraph, match=reason):
        graph(torch.zeros(1, 3, 4, 4))


def test_a_local_function_is_written_out() -> None:
    function = helper.make_function(
        "mine", "twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 18)],
    )  # fmt: skip
    model = onnx.load_from_string(
        model_of([helper.make_node("twice", ["x"], ["y"], domain="mine")], ("N", 2), {})
    )
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    graph = ImportedGraph(model.SerializeToString())
    assert graph(torch.tensor([[1.0, 2.0]])).tolist() == [[2, 4]]


def test_constants_are_computed_once_and_copies_are_whole() -> None:
    nodes = [
        helper.make_node("Mul", ["two", "two"], ["four"]),
        helper.make_node("Mul", ["x", "four"], ["y"]),
    ]
    content = model_of(nodes, ("N", 2), TWO)
    graph = ImportedGraph(content)
    assert sorted(graph.state_dict()) == ["constant_0", "digest"]
    assert graph.get_buffer("constant_0").item() == 4
    values = floats([[1, 2]])
    again = deepcopy(graph)(torch.from_numpy(values))
    np.testing.assert_array_equal(again, computed(content, values))


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "not an ONNX file"), (b"\xff\x00no", "not an ONNX file")],
)
def test_what_is_no_graph_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ImportedGraph(content)


def test_a_graph_of_two_inputs_is_refused() -> None:
    model = onnx.load_from_string(model_of(NODES[:1], ("N", 3), {}, outputs=("kept",)))
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["N"]))
    with pytest.raises(ValueError, match=r"inputs \['x', 'mask'\]"):
        ImportedGraph(model.SerializeToString())


def test_weights_in_another_file_are_named() -> None:
    model = onnx.load_from_string(model_of(NODES[2:3], ("N", 3), TWO))
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    with pytest.raises(ValueError, match="keeps its weights in another file"):
        ImportedGraph(model.SerializeToString())
