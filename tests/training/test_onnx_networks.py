import copy
from pathlib import Path

import pytest
import torch

from app.bundle import CLASSIFIER_FILE, PURIFIER_FILE
from training.adversary import is_correct, logits_of
from training.data import to_unit
from training.onnx_networks import OnnxNetwork, onnx_networks
from training.state import State, digest_of
from training.subject import Source, load_subject, protocol_of, trial_of


def test_the_graphs_answer_as_the_weights_do(digit_bundle: Path, digit_data: Path) -> None:
    trials = []
    sources: tuple[Source, ...] = ("weights", "onnx")
    for source in sources:
        subject = load_subject(digit_bundle, digit_data, source)
        protocol = protocol_of(subject)
        trials.append(
            trial_of(subject, protocol, State(None), torch.device("cpu"), lambda line: None)
        )
    images = to_unit(subject.test.images)
    weights, graphs = (
        (trial.networks["classifier"], trial.networks["student"], trial.pipeline())
        for trial in trials
    )
    for from_weights, from_graph in zip(weights, graphs, strict=True):
        torch.testing.assert_close(
            logits_of(from_graph, images), logits_of(from_weights, images), atol=1e-4, rtol=1e-4
        )
    labels = subject.test.labels
    expected = is_correct(weights[2], images, labels)
    assert torch.equal(is_correct(graphs[2], images, labels), expected)
    assert 20 < int(expected.sum()) <= len(images) == 100


def test_kept_results_are_bound_to_the_bytes_of_a_graph(digit_bundle: Path) -> None:
    content = (digit_bundle / CLASSIFIER_FILE).read_bytes()
    network = OnnxNetwork(content)
    assert (
        digest_of(network) == digest_of(copy.deepcopy(network)) == digest_of(OnnxNetwork(content))
    )
    assert digest_of(network) != digest_of(OnnxNetwork((digit_bundle / PURIFIER_FILE).read_bytes()))


def test_no_gradient_flows_back(digit_bundle: Path) -> None:
    network = OnnxNetwork((digit_bundle / CLASSIFIER_FILE).read_bytes())
    images = torch.zeros(2, 1, 28, 28, requires_grad=True)
    assert not network(images).requires_grad


def test_a_broken_graph_is_named(digit_bundle: Path) -> None:
    with pytest.raises(ValueError, match=r"classifier\.onnx: onnxruntime cannot load it"):
        onnx_networks((digit_bundle / PURIFIER_FILE).read_bytes(), b"no graph")
