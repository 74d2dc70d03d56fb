"""Real classifiers, brought: by scikit-learn, by PyTorch's exporter, and as modules."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from tests.training.brought_classifiers import (
    LARGE,
    by_hand,
    by_torch_export,
    dataset_of,
    trained,
)
from tests.training.onnx_models import floats, model_of
from tests.training.scikit_classifiers import by_scikit_learn, digits
from tests.training.tiny_runs import SPEC, tiny_recipe
from training.brought import BroughtClassifier, bring, check_recipe, classifier_file, told
from training.classifier_file import ClassifierError
from training.classifier_options import ClassifierOptions
from training.data import Dataset, to_unit
from training.onnx_importer import OPERATORS
from training.recipe_book import HARDENED_PHOTO, PAPER
from training.run import build_purifier


def brought(path: Path, content: bytes, dataset: Dataset, **given: Any) -> BroughtClassifier:
    path.write_bytes(content)
    options = ClassifierOptions(source=str(path), **given)
    return bring(options, classifier_file(options), dataset)


DIGITS: dict[str, Any] = {"scale": 16.0, "gives": "probabilities"}


@pytest.mark.parametrize("zipmap", [True, False])
def test_a_perceptron_of_scikit_learn(tmp_path: Path, zipmap: bool) -> None:
    content = by_scikit_learn("mlp", zipmap=zipmap)
    found = brought(tmp_path / "mlp.onnx", content, digits(), **DIGITS)
    assert found.content == content
    assert found.accuracy > 0.95
    assert found.network is not None and found.obstacles == ()
    images = to_unit(digits().test.images[:50])
    with torch.no_grad():
        logits = found.network(images)
    np.testing.assert_allclose(logits.softmax(1), found.served.answers(images), atol=1e-5)
    # The logits before the last softmax, not its logarithm: float32 has no e to the minus 100.
    assert bool((found.network.graph(found.network.preprocess(images)) == logits).all())  # type: ignore[operator]
    assert found.origin["sha256"] in " ".join(found.identity)
    assert found.origin["options"]["scale"] == 16
    assert told(found).startswith("classifier: mlp.onnx, SHA-256 ")


@pytest.mark.parametrize("single", [False, True], ids=["any batch", "one image"])
def test_colour_images_of_64x64_by_pytorchs_exporter(tmp_path: Path, single: bool) -> None:
    content, dataset = by_torch_export(single=single), dataset_of(LARGE)
    found = brought(tmp_path / "net.onnx", content, dataset, scale=255.0)
    assert found.network is not None and found.accuracy > 0.9
    images = to_unit(dataset.test.images[:9]).requires_grad_()
    logits = found.network(images)
    expected = trained(LARGE, 255.0)(images * 255)
    torch.testing.assert_close(logits, expected, atol=1e-3, rtol=1e-3)
    (gradient,) = torch.autograd.grad(logits.square().sum(), images, retain_graph=True)
    (same,) = torch.autograd.grad(expected.square().sum(), images)
    torch.testing.assert_close(gradient, same, atol=0.1, rtol=1e-2)


def test_a_module_with_norm_and_dropout(tmp_path: Path) -> None:
    torch.save(trained(SPEC).state_dict(), tmp_path / "w.pt")
    source = "tests.training.brought_classifiers:made"
    options = ClassifierOptions(source=source, weights=tmp_path / "w.pt")
    assert classifier_file(options) is None
    dataset = dataset_of(SPEC)
    found = bring(options, None, dataset)
    images = to_unit(dataset.test.images)
    assert found.network is not None and found.preprocess is None
    with torch.no_grad():
        torch.testing.assert_close(
            found.network(images), trained(SPEC)(images), atol=1e-4, rtol=1e-4
        )
    assert found.origin["name"] == source


@pytest.mark.parametrize("side", [29, 256])
def test_the_smallest_and_the_largest_images_in_colour(tmp_path: Path, side: int) -> None:
    spec = LARGE.model_copy(update={"height": side, "width": side})
    # Pooled to the same features at any size, it knows halves of every size.
    torch.save(trained(LARGE).state_dict(), tmp_path / "w.pt")
    source = "tests.training.brought_classifiers:made_in_colour"
    options = ClassifierOptions(source=source, weights=tmp_path / "w.pt")
    dataset = dataset_of(spec)
    found = bring(options, None, dataset)
    assert found.network is not None and found.accuracy > 0.9
    purifier = build_purifier(HARDENED_PHOTO.student, spec).eval()
    images = to_unit(dataset.test.images[:2]).requires_grad_()
    logits = found.network(purifier(images))
    (gradient,) = torch.autograd.grad(logits.square().sum(), images)
    assert gradient.shape == (2, 3, side, side) and bool(gradient.abs().amax(dim=(1, 2, 3)).all())


def test_a_classifier_that_looks_at_the_whole_batch_is_refused(tmp_path: Path) -> None:
    nodes = [  # what batch norm does in training mode
        onnx.helper.make_node("Flatten", ["x"], ["rows"]),
        onnx.helper.make_node("ReduceMean", ["rows", "batch"], ["mean"]),
        onnx.helper.make_node("Sub", ["rows", "mean"], ["centred"]),
        onnx.helper.make_node("MatMul", ["centred", "weights"], ["y"]),
    ]
    weights = floats(np.random.default_rng(0).normal(size=(SPEC.height * SPEC.width, 3)))
    constants = {"batch": np.array([0]), "weights": weights}
    content = model_of(nodes, ("N", *SPEC.shape), constants, outputs=("y",))
    with pytest.raises(ClassifierError, match=r"mine\.onnx: its answer .* depends on the others"):
        brought(tmp_path / "mine.onnx", content, dataset_of(SPEC))


def test_a_scale_that_comes_from_the_batch_is_no_such_look(tmp_path: Path) -> None:
    dataset = dataset_of(SPEC)
    images, labels = to_unit(dataset.train.images).flatten(1), dataset.train.labels
    means = torch.stack([images[labels == label].mean(0) for label in range(3)])
    nodes = [  # as onnxruntime quantizes what a layer is given
        onnx.helper.make_node("Flatten", ["x"], ["rows"]),
        onnx.helper.make_node("DynamicQuantizeLinear", ["rows"], ["bytes", "scale", "zero"]),
        onnx.helper.make_node("DequantizeLinear", ["bytes", "scale", "zero"], ["again"]),
        onnx.helper.make_node("MatMul", ["again", "weights"], ["y"]),
    ]
    weights = {"weights": (means - means.mean(0)).T.numpy()}
    content = model_of(nodes, ("N", *SPEC.shape), weights, outputs=("y",))
    assert brought(tmp_path / "mine.onnx", content, dataset).accuracy > 0.9


def test_a_forest_has_no_gradients(tmp_path: Path) -> None:
    content = by_scikit_learn("forest")
    found = brought(tmp_path / "forest.onnx", content, digits(), **DIGITS)
    assert found.network is None
    assert found.obstacles == ("ai.onnx.ml.TreeEnsembleClassifier",)
    check_recipe(PAPER, found)
    with pytest.raises(ClassifierError, match=r"TreeEnsembleClassifier\), and hardened attacks"):
        check_recipe(tiny_recipe(), found)
    assert told(found).endswith("(operators ai.onnx.ml.TreeEnsembleClassifier): a surrogate's")


def test_a_gradient_of_zero_is_none(tmp_path: Path) -> None:
    found = brought(tmp_path / "steps.onnx", by_hand(rounds=True), dataset_of(SPEC))
    assert found.network is None
    assert found.obstacles == ("that have a gradient of zero",)


def test_what_is_not_the_same_in_pytorch_has_no_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OPERATORS, "Relu", lambda node, values: values.abs())
    found = brought(tmp_path / "mlp.onnx", by_scikit_learn("mlp"), digits(), **DIGITS)
    with pytest.raises(ClassifierError, match=r"\(operators that come out otherwise in PyTorch\)"):
        check_recipe(HARDENED_PHOTO, found)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"scale": 16.0}, "say --gives probabilities"),
        ({"scale": 0.1, "gives": "probabilities"}, "with --scale 255"),
        ({**DIGITS, "output": "output_label"}, "no float32"),
    ],
    ids=["logits", "scale", "output"],
)
def test_a_wrong_option_is_named(tmp_path: Path, given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ClassifierError, match=reason):
        brought(tmp_path / "mlp.onnx", by_scikit_learn("mlp"), digits(), **given)


@pytest.mark.parametrize("source", ["net.onnx", "net.pt"])
def test_weights_beside_a_file_that_has_them_are_refused(source: str) -> None:
    with pytest.raises(ClassifierError, match=rf"{source}: .* its weights inside; no --weights"):
        classifier_file(ClassifierOptions(source=source, weights=Path("w.pt")))


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ClassifierError, match=r"nowhere\.onnx: cannot be read"):
        classifier_file(ClassifierOptions(source="nowhere.onnx"))


def test_a_graph_that_fails_on_the_images_is_named(tmp_path: Path) -> None:
    model = onnx.load_from_string(by_hand(rounds=True))
    for dim in model.graph.input[0].type.tensor_type.shape.dim[1:]:
        dim.ClearField("dim_value")
    larger = SPEC.model_copy(update={"height": 12})
    with pytest.raises(ClassifierError, match=r"open\.onnx: onnxruntime cannot run it: .*MatMul"):
        brought(tmp_path / "open.onnx", model.SerializeToString(), dataset_of(larger))
