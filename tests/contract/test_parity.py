"""What training exports computes what PyTorch computes, under the names the service expects."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from app.bundle import InputSpec
from tests.training.small_networks import digit_images, small_networks
from training.export import Kind, ParityError, check_parity, difference_of, export_onnx

SPECS = [InputSpec(channels=1, height=28, width=28), InputSpec(channels=3, height=32, width=32)]


def _images(spec: InputSpec) -> Tensor:
    digits, _ = digit_images(32)
    padding = (spec.width - 28) // 2
    padded = torch.nn.functional.pad(digits, (padding,) * 4)
    return padded.expand(-1, spec.channels, -1, -1).contiguous()


@pytest.mark.parametrize("spec", SPECS, ids=["grey", "colour"])
@pytest.mark.parametrize(
    ("stem", "skips", "pooled_maps"), [(0, True, 0), (4, False, 0), (4, False, 5)]
)
@pytest.mark.parametrize(
    ("kind", "output", "shape"),
    [("purifier", "purified", None), ("classifier", "logits", (10,))],
)
def test_graphs_compute_what_the_networks_compute(
    spec: InputSpec,
    stem: int,
    skips: bool,
    pooled_maps: int,
    kind: Kind,
    output: str,
    shape: tuple[int, ...] | None,
) -> None:
    purifier, classifier = small_networks(spec, stem=stem, skips=skips, pooled_maps=pooled_maps)
    network = purifier if kind == "purifier" else classifier
    content = export_onnx(network, kind, spec)
    images = _images(spec)
    assert check_parity(network, content, images) <= 1e-4

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type) == ("images", "tensor(float)")
    assert taken.shape[1:] == list(spec.shape) and isinstance(taken.shape[0], str)
    assert given.name == output
    for size in (1, 7, 32):
        with torch.no_grad():
            expected = network(images[:size]).numpy()
        (found,) = session.run([output], {"images": images[:size].numpy()})
        assert found.shape == (size, *(shape or spec.shape))
        assert np.abs(found - expected).max() <= 1e-4


def test_the_same_weights_give_the_same_bytes_without_a_trace_of_the_machine() -> None:
    network = small_networks()[0]
    first, second = (export_onnx(network, "purifier", SPECS[0]) for _ in range(2))
    assert first == second
    graph = onnx.load_from_string(first)
    assert not any(node.op_type == "BatchNormalization" for node in graph.graph.node)
    assert not any(tensor.external_data for tensor in graph.graph.initializer)
    assert b".py" not in first and b"site-packages" not in first


def test_a_graph_of_other_weights_is_refused_with_the_difference() -> None:
    network, other = small_networks(seed=0)[0], small_networks(seed=1)[0]
    content = export_onnx(other, "purifier", SPECS[0])
    with pytest.raises(ParityError, match=r"batch 1: graph and network differ by 0\.\d+"):
        check_parity(network, content, _images(SPECS[0]))


def test_large_logits_may_differ_by_their_last_digits() -> None:
    classifier = small_networks()[1]
    with torch.no_grad():
        classifier.get_parameter("head.1.weight").mul_(1e5)
    images = _images(SPECS[0])
    content = export_onnx(classifier, "classifier", SPECS[0])
    assert check_parity(classifier, content, images) <= 1e-5
    (found,) = onnxruntime.InferenceSession(content).run(None, {"images": images.numpy()})
    assert np.abs(found - classifier(images).detach().numpy()).max() > 1e-4


def test_what_is_not_a_number_is_no_parity() -> None:
    numbers = torch.tensor([1.0, 2.0])
    assert difference_of(numbers, numbers) == 0
    for odd in (float("nan"), float("inf")):
        spoilt = torch.tensor([1.0, odd])
        assert difference_of(numbers, spoilt) == difference_of(spoilt, numbers) == float("inf")


def test_a_graph_of_another_shape_is_refused() -> None:
    purifier, classifier = small_networks()
    content = export_onnx(purifier, "purifier", SPECS[0])
    with pytest.raises(ParityError, match="graph gives"):
        check_parity(classifier, content, _images(SPECS[0]))


def test_parity_needs_enough_images() -> None:
    with pytest.raises(ValueError, match="32"):
        check_parity(small_networks()[0], b"", torch.rand(31, 1, 28, 28))
