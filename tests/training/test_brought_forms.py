"""The forms that users' classifiers come in: shapes, maps, half precision, masks, squeezes."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.neural_network import MLPClassifier
from torch import Tensor

from tests.training.brought_classifiers import dataset_of
from tests.training.onnx_models import floats, model_of
from tests.training.tiny_runs import CLASSES, SPEC
from training.brought import BroughtClassifier, bring, check_recipe, classifier_file
from training.classifier_file import ClassifierError
from training.classifier_options import ClassifierOptions
from training.data import to_unit
from training.folding import channels_last
from training.onnx_importer import OPERATORS
from training.recipe_book import HARDENED, PAPER

DATASET = dataset_of(SPEC)


def brought(path: Path, content: bytes, **given: Any) -> BroughtClassifier:
    path.write_bytes(content)
    options = ClassifierOptions(source=str(path), **given)
    return bring(options, classifier_file(options), DATASET)


def means() -> Tensor:
    """How the mean image of each class differs from the mean of all, (pixels, 3)."""
    images, labels = to_unit(DATASET.train.images).flatten(1), DATASET.train.labels
    each = torch.stack([images[labels == label].mean(0) for label in range(3)])
    return (each - each.mean(0)).T


def ending(
    *nodes: onnx.NodeProto, batch: int | str = "N", constants: dict[str, Any] | None = None
) -> bytes:
    """A classifier whose `scores` (N, 3) go through the nodes to `y`."""
    start = [
        helper.make_node("Flatten", ["x"], ["rows"]),
        helper.make_node("MatMul", ["rows", "weights"], ["scores"]),
    ]
    given = {"weights": means().numpy(), **(constants or {})}
    return model_of([*start, *nodes], (batch, *SPEC.shape), given, outputs=("y",))


def agrees(found: BroughtClassifier) -> bool:
    """Whether network and file give the same for images that were not tried."""
    images = to_unit(DATASET.test.images)
    assert found.network is not None, found.obstacles
    with torch.no_grad():
        given = found.network(images).softmax(1)
    return bool((given - found.served.logits(images).softmax(1)).abs().max() < 1e-4)


def test_a_squeeze_without_axes_is_named(tmp_path: Path) -> None:
    axes = {"axes": np.array([2, 3])}
    squeezed = ending(
        helper.make_node("Unsqueeze", ["scores", "axes"], ["wide"]),
        helper.make_node("Squeeze", ["wide"], ["y"]),
        constants=axes,
    )
    with pytest.raises(ClassifierError, match=r"mine\.onnx: for one image alone .* squeeze\(\)"):
        brought(tmp_path / "mine.onnx", squeezed)
    alone = ending(helper.make_node("Squeeze", ["scores"], ["y"]), batch=1)
    with pytest.raises(ClassifierError, match=r"rows for 60 images: was it made with squeeze\(\)"):
        brought(tmp_path / "mine.onnx", alone)


def test_a_graph_that_fails_on_one_image_is_named(tmp_path: Path) -> None:
    pairs = ending(
        helper.make_node("Split", ["scores"], ["a", "b"], num_outputs=2, axis=0),
        helper.make_node("Concat", ["a", "b"], ["joined"], axis=0),
        helper.make_node("Gather", ["joined", "second"], ["one"], axis=0),
        helper.make_node("Mul", ["one", "zero"], ["nothing"]),
        helper.make_node("Add", ["scores", "nothing"], ["y"]),
        constants={"second": np.array([1]), "zero": np.float32(0)},
    )
    with pytest.raises(ClassifierError, match=r"mine\.onnx: it fails on one image alone"):
        brought(tmp_path / "mine.onnx", pairs)


def test_labels_of_scikit_learn_may_be_words(tmp_path: Path) -> None:
    train = DATASET.train
    rows = to_unit(train.images).flatten(1).numpy()
    estimator = MLPClassifier((8,), learning_rate_init=0.01, max_iter=500, tol=1e-3, random_state=0)
    estimator.fit(rows, np.array(CLASSES)[train.labels.numpy()])
    content = to_onnx(estimator, rows[:1]).SerializeToString()
    assert agrees(brought(tmp_path / "mlp.onnx", content, gives="probabilities"))


def test_a_map_is_served_in_the_order_of_its_labels(tmp_path: Path) -> None:
    model = onnx.load_from_string(
        ending(
            helper.make_node("Gather", ["scores", "turned"], ["others"], axis=1),
            helper.make_node("Softmax", ["others"], ["shares"]),
            helper.make_node(
                "ZipMap",
                ["shares"],
                ["y"],
                domain="ai.onnx.ml",
                classlabels_strings=["c", "a", "b"],
            ),
            constants={"turned": np.array([2, 0, 1])},
        )
    )
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [])
    kind = helper.make_map_type_proto(TensorProto.STRING, value.type)
    model.graph.output[0].type.CopyFrom(helper.make_sequence_type_proto(kind))
    assert agrees(brought(tmp_path / "m.onnx", model.SerializeToString(), gives="probabilities"))


@pytest.mark.parametrize("shape", [[0, 1, 3], [0, 3, 1, 1]])
def test_probabilities_behind_a_reshape_keep_their_logits(tmp_path: Path, shape: list[int]) -> None:
    content = ending(
        helper.make_node("Mul", ["scores", "sure"], ["high"]),
        helper.make_node("Softmax", ["high"], ["shares"]),
        helper.make_node("Reshape", ["shares", "shape"], ["y"]),
        constants={"sure": np.float32(300), "shape": np.array(shape)},
    )
    assert agrees(brought(tmp_path / "sure.onnx", content, gives="probabilities"))


def test_half_precision_is_named_where_it_is_rounded_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = ending(
        helper.make_node("Cast", ["scores"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["half", "much"], ["high"]),
        helper.make_node("Cast", ["high"], ["y"], to=TensorProto.FLOAT),
        constants={"much": np.float16(3)},
    )
    assert agrees(brought(tmp_path / "half.onnx", content))
    monkeypatch.setitem(OPERATORS, "Mul", lambda node, left, right: 1.01 * left * right)
    found = brought(tmp_path / "half.onnx", content)
    check_recipe(PAPER, found)
    with pytest.raises(ClassifierError, match="otherwise in PyTorch in float16: export float32"):
        check_recipe(HARDENED, found)


def test_a_constant_of_five_axes_is_no_obstacle(tmp_path: Path) -> None:
    content = ending(
        helper.make_node("Reshape", ["scores", "shape"], ["deep"]),
        helper.make_node("Add", ["deep", "mask"], ["masked"]),
        helper.make_node("Flatten", ["masked"], ["y"]),
        constants={
            "shape": np.array([0, 1, 1, 1, 3]),
            "mask": floats(np.zeros((1, 2, 1, 1, 1))[:, :1]),
        },
    )
    found = brought(tmp_path / "window.onnx", content)
    assert found.network is not None
    assert channels_last(found.network, torch.device("cpu")) is found.network
    assert agrees(found)


def test_one_number_for_two_classes_is_named(tmp_path: Path) -> None:
    two = model_of(
        [
            helper.make_node("Flatten", ["x"], ["rows"]),
            helper.make_node("MatMul", ["rows", "weights"], ["y"]),
        ],
        ("N", *SPEC.shape),
        {"weights": means()[:, :1].numpy()},
        outputs=("y",),
    )
    path = tmp_path / "cats.ONNX"
    path.write_bytes(two)
    options = ClassifierOptions(source=str(path))
    train = DATASET.train.subset([row for row in range(60) if row % 3 < 2])
    pair = type(DATASET)(
        "pair",
        type(train)(train.images, train.labels, train.names, CLASSES[:2]),
        DATASET.test,
        SPEC,
        "0" * 64,
    )
    with pytest.raises(ClassifierError, match="one number for two classes; wanted is one for each"):
        bring(options, classifier_file(options), pair)
