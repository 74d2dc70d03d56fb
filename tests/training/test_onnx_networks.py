"""A bundle's two graphs: the same answers as its weights, and attacks that end the same."""

import copy
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from app.bundle import CLASSIFIER_FILE, PURIFIER_FILE, BundleError, digest, read_manifest
from tests.training.small_networks import small_networks
from training.adversary import is_correct, logits_of
from training.attempts import attempt
from training.data import Split, load_split, to_unit
from training.export import ParityError, export_onnx
from training.onnx_importer import OPERATORS
from training.onnx_networks import (
    ServedNetwork,
    rebuilt_networks,
    served_networks,
    without_gradients,
)
from training.served_classifier import StandIn
from training.state import State, digest_of
from training.subject import Source, load_subject, protocol_of, trial_of
from training.trial import Trial

SOURCES: tuple[Source, ...] = ("weights", "onnx", "served")


def _trial(bundle: Path, data: Path, source: Source) -> Trial:
    subject = load_subject(bundle, data, source)
    protocol = protocol_of(subject, n=40, epsilon=0.03, quick=True)
    return trial_of(subject, protocol, State(None), torch.device("cpu"), lambda line: None)


@pytest.fixture
def test_split(digit_bundle: Path, digit_data: Path) -> Split:
    manifest = read_manifest(digit_bundle)
    return load_split(digit_data, "test", manifest.input, manifest.labels)


@pytest.fixture
def bundle(digit_bundle: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    copied = tmp_path / "bundle"
    shutil.copytree(digit_bundle, copied)
    return copied


def _replace(bundle: Path, file: str, content: bytes) -> None:
    """Another file, which the manifest agrees with."""
    (bundle / file).write_bytes(content)
    manifest = read_manifest(bundle)
    files = {**manifest.files, file: digest(content)}
    changed = manifest.model_copy(update={"files": files})
    (bundle / "bundle.json").write_text(changed.model_dump_json())


def test_all_sources_answer_alike(digit_bundle: Path, digit_data: Path, test_split: Split) -> None:
    images, labels = to_unit(test_split.images), test_split.labels
    weights, onnx, served = (_trial(digit_bundle, digit_data, source) for source in SOURCES)
    expected = is_correct(weights.pipeline(), images, labels)
    assert 20 < int(expected.sum()) <= len(images) == 100
    for trial in (onnx, served):
        for name in ("student", "classifier"):
            torch.testing.assert_close(
                logits_of(trial.networks[name], images),
                logits_of(weights.networks[name], images),
                atol=1e-4,
                rtol=1e-4,
            )
        assert torch.equal(is_correct(trial.pipeline(), images, labels), expected)
    assert onnx.networks.keys() == weights.networks.keys()
    assert served.networks.keys() == {"student", "classifier"}


@pytest.mark.parametrize("attack", ["apgd-ce", "pgd"])
def test_an_attack_breaks_the_same_images_from_either_source(
    attack: str, digit_bundle: Path, digit_data: Path
) -> None:
    weights, onnx = (
        attempt(attack, _trial(digit_bundle, digit_data, source)) for source in SOURCES[:2]
    )
    assert 0 < int(weights.robust.sum()) < 40
    # One image: two programs that compute the same differ in the last digits.
    assert int((weights.robust != onnx.robust).sum()) <= 1


def test_kept_results_are_bound_to_the_bytes_of_a_file(digit_bundle: Path) -> None:
    networks = served_networks(digit_bundle, read_manifest(digit_bundle))
    again = served_networks(digit_bundle, read_manifest(digit_bundle))
    student, classifier = networks["student"], networks["classifier"]
    assert digest_of(student) == digest_of(copy.deepcopy(student)) == digest_of(again["student"])
    assert digest_of(student) != digest_of(classifier)


def test_no_gradient_flows_back_from_what_is_served(digit_bundle: Path) -> None:
    networks = served_networks(digit_bundle, read_manifest(digit_bundle))
    images = torch.zeros(2, 1, 28, 28, requires_grad=True)
    assert not any(network(images).requires_grad for network in networks.values())


def test_what_is_something_else_in_pytorch_is_not_attacked(
    digit_bundle: Path, test_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(digit_bundle)

    def spoil(operator: str) -> None:
        rightly = OPERATORS[operator]
        monkeypatch.setitem(OPERATORS, operator, lambda *given: 0.99 * rightly(*given))  # type: ignore[operator]

    spoil("ReduceMean")
    networks = rebuilt_networks(digit_bundle, manifest, test_split, None)
    assert "classifier.onnx" in without_gradients(networks)
    assert "come out otherwise in PyTorch" in without_gradients(networks)
    spoil("Sigmoid")
    with pytest.raises(ParityError, match=r"^purifier\.onnx: in PyTorch it differs"):
        rebuilt_networks(digit_bundle, manifest, test_split, None)


def test_files_of_other_networks_are_another_bundle(
    bundle: Path, digit_data: Path, test_split: Split
) -> None:
    other = small_networks(seed=3)[1]
    _replace(bundle, CLASSIFIER_FILE, export_onnx(other, "classifier", read_manifest(bundle).input))
    images = to_unit(test_split.images[:8])
    weights, onnx = (_trial(bundle, digit_data, source) for source in SOURCES[:2])
    torch.testing.assert_close(
        logits_of(onnx.networks["classifier"], images), logits_of(other, images)
    )
    ours = logits_of(weights.networks["classifier"], images)
    assert not torch.allclose(logits_of(other, images), ours, atol=0.1)


@pytest.mark.parametrize("file", [PURIFIER_FILE, CLASSIFIER_FILE])
@pytest.mark.parametrize("source", ["onnx", "served"])
def test_a_broken_file_is_named(file: str, source: Source, bundle: Path, digit_data: Path) -> None:
    content = (bundle / file).read_bytes()
    (bundle / file).write_bytes(content + b"\0")
    with pytest.raises(BundleError, match=f"{file}: has SHA-256"):
        load_subject(bundle, digit_data, source)
    _replace(bundle, file, b"no graph")
    with pytest.raises(BundleError, match=f"{file}: onnxruntime refuses it"):
        load_subject(bundle, digit_data, source)


def test_what_has_no_gradients_is_left_to_onnxruntime(
    bundle: Path, test_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(bundle)
    monkeypatch.delitem(OPERATORS, "ReduceMean")
    networks = rebuilt_networks(bundle, manifest, test_split, None)
    assert isinstance(networks["classifier"], ServedNetwork)
    assert without_gradients(networks) == (
        "classifier.onnx cannot be differentiated (operators ReduceMean), "
        "and the weights have no surrogate of it"
    )
    surrogate = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    networks = rebuilt_networks(bundle, manifest, test_split, surrogate)
    assert isinstance(networks["classifier"], StandIn) and not without_gradients(networks)
    monkeypatch.delitem(OPERATORS, "Sigmoid")
    networks = rebuilt_networks(bundle, manifest, test_split, surrogate)
    assert without_gradients(networks).startswith("purifier.onnx cannot be differentiated")
