"""Classifiers as users bring them: other names and layouts, probabilities, one image at a time."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.adapter import open_adapted
from app.bundle import (
    CLASSIFIER_FILE,
    MANIFEST_FILE,
    PREPROCESS_FILE,
    BundleError,
    ClassifierSpec,
    digest,
    read_manifest,
)
from app.engine import Outcome, Task, load_engine, warm_up
from app.errors import InferenceFailed
from app.graphs import DeviceGraphs
from app.interface import open_graph
from app.sessions import Floats
from app.stop import Stop
from tests.bundles import make_bundle

SPEC = {"input": "pixels", "output": "answer", "gives": "logits"}
Image = tuple[int | str, ...]


def graph(
    nodes: list[onnx.NodeProto],
    taken: Image,
    given: Image,
    *,
    names: tuple[str, str] = ("pixels", "answer"),
    extra: list[onnx.ValueInfoProto] | None = None,
    **constants: npt.NDArray[Any],
) -> bytes:
    """A model of one input; its first output is `extra`, if there is any."""
    outputs = [helper.make_tensor_value_info(names[1], TensorProto.FLOAT, list(given))]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "brought",
            [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, list(taken))],
            [*(extra or []), *([] if extra and extra[0].name == names[1] else outputs)],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)],
        ir_version=9,
    )
    content: bytes = model.SerializeToString()
    return content


# Brightness from 0 to 255, from which the three classes of the bundle are told apart.
CENTRES = np.float32(255) * np.array([[0.0, 0.5, 1.0]], np.float32)
SHARPNESS = np.array(0.01, np.float32)


def brought(batch: int | str = "N", last: str = "Identity") -> bytes:
    """A classifier of rows of 64 pixels from 0 to 255, with a label before its answer."""
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1]),
        helper.make_node("Sub", ["mean", "centres"], ["far"]),
        helper.make_node("Mul", ["far", "far"], ["square"]),
        helper.make_node("Mul", ["square", "sharpness"], ["cost"]),
        helper.make_node("Neg", ["cost"], ["scores"]),
        helper.make_node(last, ["scores"], ["answer"]),
        helper.make_node("ArgMax", ["answer"], ["label"], axis=1, keepdims=0),
    ]
    label = helper.make_tensor_value_info("label", TensorProto.INT64, [batch])
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, [batch, 3])
    return graph(
        nodes, (batch, 64), (batch, 3), extra=[label, answer],
        centres=CENTRES, sharpness=SHARPNESS,
    )  # fmt: skip


def mapped() -> bytes:
    """The same as scikit-learn's converter ends: a map from label to probability per image."""
    model = onnx.load_from_string(brought(last="Softmax"))
    model.graph.node[-2].output[:] = ["probabilities"]
    model.graph.node[-1].input[:] = ["probabilities"]
    keys = [2, 5, 7]
    model.graph.node.append(
        helper.make_node(
            "ZipMap", ["probabilities"], ["answer"], domain="ai.onnx.ml", classlabels_int64s=keys
        )
    )
    value = helper.make_tensor_value_info("answer", TensorProto.FLOAT, [])
    kind = helper.make_map_type_proto(TensorProto.INT64, value.type)
    model.graph.output[1].type.CopyFrom(helper.make_sequence_type_proto(kind))
    content: bytes = model.SerializeToString()
    return content


PREPROCESS = graph(
    [
        helper.make_node("Mul", ["images", "white"], ["bytes"]),
        helper.make_node("Flatten", ["bytes"], ["prepared"]),
    ],
    ("N", 1, 8, 8),
    ("N", 64),
    names=("images", "prepared"),
    white=np.array(255, np.float32),
)


def bundle(folder: Path, classifier: bytes, preprocess: bytes | None, **spec: str) -> Path:
    """A bundle with a classifier that was brought."""
    bundle = make_bundle(folder)
    document = json.loads((bundle / MANIFEST_FILE).read_bytes())
    files = {CLASSIFIER_FILE: classifier}
    if preprocess is not None:
        files[PREPROCESS_FILE] = preprocess
    for name, content in files.items():
        (bundle / name).write_bytes(content)
        document["files"][name] = digest(content).model_dump()
    document["classifier"] = SPEC | spec
    (bundle / MANIFEST_FILE).write_text(json.dumps(document))
    return bundle


def widened(*axes: int) -> bytes:
    """The same whose answer has further axes of one number."""
    model = onnx.load_from_string(brought())
    model.graph.node[-2].output[:] = ["plain"]
    model.graph.node[-1].input[:] = ["plain"]
    model.graph.node.append(helper.make_node("Unsqueeze", ["plain", "axes"], ["answer"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array(axes), "axes"))
    sizes = np.expand_dims(np.empty((2, 3)), axes).shape[1:]
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["N", *sizes])
    model.graph.output[1].CopyFrom(answer)
    content: bytes = model.SerializeToString()
    return content


KINDS = {
    "logits": (brought(), "logits"),
    "a row in a row": (widened(1), "logits"),
    "maps of one pixel": (widened(2, 3), "logits"),
    "one image at a time": (brought(batch=1), "logits"),
    "probabilities": (brought(last="Softmax"), "probabilities"),
    "maps": (mapped(), "probabilities"),
}


@pytest.mark.parametrize(("content", "gives"), KINDS.values(), ids=KINDS.keys())
def test_a_brought_classifier_is_served_like_any_other(
    tmp_path: Path, content: bytes, gives: str
) -> None:
    folder = bundle(tmp_path, content, PREPROCESS, gives=gives)
    manifest = read_manifest(folder)
    engine = load_engine(folder, manifest, "cpu", 1)
    warm_up(engine, folder, manifest, 3)
    tasks = [Task(np.full((1, 8, 8), level, np.uint8), plain=True) for level in (10, 120, 250)]
    for place, outcome in enumerate(engine.run(tasks)):
        assert isinstance(outcome, Outcome) and outcome.plain is not None
        assert outcome.plain.argmax() == place
        assert outcome.plain.sum() == pytest.approx(1)
    # 70 is between two centres, for the chances to be none of 0 and 1.
    (near,) = engine.run([Task(np.full((1, 8, 8), 70, np.uint8), plain=True)])
    assert isinstance(near, Outcome) and near.plain is not None
    costs = 0.01 * (70 - CENTRES[0].astype(np.float64)) ** 2
    chances = np.exp(-costs) / np.exp(-costs).sum()
    np.testing.assert_allclose(near.plain, chances, atol=1e-4)
    engine.close()


@pytest.mark.parametrize(("content", "gives"), KINDS.values(), ids=KINDS.keys())
def test_a_device_gives_what_the_host_gives(tmp_path: Path, content: bytes, gives: str) -> None:
    folder = bundle(tmp_path, content, PREPROCESS, gives=gives)
    manifest = read_manifest(folder)
    assert manifest.classifier is not None
    classifier = open_adapted(folder, manifest, manifest.classifier, "cpu", 1)
    purifier = open_graph(folder, manifest, "purifier.onnx", "cpu", 1)
    graphs = DeviceGraphs(purifier, classifier)
    images: Floats = np.random.default_rng(0).random((3, 1, 8, 8), np.float32)
    found = graphs.purify(images, [0, 2], keep=True, stop=Stop())
    assert found.images is not None and found.logits is not None
    expected = classifier.run(found.images, Stop())[[0, 2]]
    np.testing.assert_allclose(found.logits, expected, atol=1e-5)
    np.testing.assert_allclose(graphs.classify(images, Stop()), classifier.run(images), atol=1e-5)
    assert classifier.provider == "CPUExecutionProvider"


def test_what_takes_images_as_they_are_needs_no_preprocessing(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2, 3]),
        helper.make_node("Mul", ["mean", "slopes"], ["answer"]),
    ]
    slopes = np.array([1, 2, 3], np.float32).reshape(1, 3, 1, 1)
    folder = bundle(tmp_path, graph(nodes, ("N", 1, 8, 8), ("N", 3, 1, 1), slopes=slopes), None)
    manifest = read_manifest(folder)
    engine = load_engine(folder, manifest, "cpu", 1)
    warm_up(engine, folder, manifest, 2)
    (outcome,) = engine.run([Task(np.full((1, 8, 8), 255, np.uint8), plain=True)])
    assert isinstance(outcome, Outcome) and outcome.plain is not None
    logits = np.exp([1, 2, 3])
    np.testing.assert_allclose(outcome.plain, logits / logits.sum(), rtol=1e-5)


def test_a_probability_that_is_not_a_number_fails_alone(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1]),
        helper.make_node("Sub", ["mean", "white"], ["dark"]),
        helper.make_node("Div", ["dark", "dark"], ["one"]),  # 0 / 0 for a white image
        helper.make_node("Mul", ["one", "thirds"], ["answer"]),
    ]
    content = graph(
        nodes, ("N", 64), ("N", 3),
        white=np.array(255, np.float32), thirds=np.full((1, 3), 1 / 3, np.float32),
    )  # fmt: skip
    folder = bundle(tmp_path, content, PREPROCESS, gives="probabilities")
    engine = load_engine(folder, read_manifest(folder), "cpu", 1)
    tasks = [Task(np.full((1, 8, 8), level, np.uint8), plain=True) for level in (9, 255)]
    good, bad = engine.run(tasks)
    assert isinstance(good, Outcome) and isinstance(bad, InferenceFailed)


@pytest.mark.parametrize(
    ("content", "preprocess", "spec", "reason"),
    [
        (brought(), PREPROCESS, {"input": "x"}, r"classifier.onnx: its inputs are \['pixels'\]"),
        (brought(), PREPROCESS, {"output": "x"}, r"outputs are \['label', 'answer'\]"),
        (brought(), PREPROCESS, {"output": "label"}, r"its output is tensor\(int64\)"),
        (brought(), None, {}, r"input has the shape \(None, 64\), the manifest says \(None, 1, 8"),
        (brought(batch=5), PREPROCESS, {}, "takes batches of 5 alone"),
        (brought(), brought(), {}, r"preprocess.onnx: its inputs are \['pixels'\]"),
        (b"none", PREPROCESS, {}, r"classifier.onnx: onnxruntime refuses"),
        (brought(), b"none", {}, r"preprocess.onnx: onnxruntime refuses"),
    ],
    ids=["input", "output", "type", "shape", "batch", "preprocess", "no graph", "no preprocess"],
)
def test_a_classifier_that_contradicts_its_description_is_refused(
    tmp_path: Path, content: bytes, preprocess: bytes | None, spec: dict[str, str], reason: str
) -> None:
    folder = bundle(tmp_path, content, preprocess, **spec)
    with pytest.raises(BundleError, match=reason):
        load_engine(folder, read_manifest(folder), "cpu", 1)


def test_a_wrong_number_of_classes_is_refused(tmp_path: Path) -> None:
    folder = bundle(tmp_path, brought(), PREPROCESS)
    document = json.loads((folder / MANIFEST_FILE).read_bytes())
    document["labels"] = ["one", "two"]
    (folder / MANIFEST_FILE).write_text(json.dumps(document))
    with pytest.raises(BundleError, match=r"shape \(None, 3\), the manifest has 2 labels"):
        load_engine(folder, read_manifest(folder), "cpu", 1)


def test_preprocessing_without_a_description_is_refused(tmp_path: Path) -> None:
    folder = bundle(tmp_path, brought(), PREPROCESS)
    document = json.loads((folder / MANIFEST_FILE).read_bytes())
    del document["classifier"]
    (folder / MANIFEST_FILE).write_text(json.dumps(document))
    with pytest.raises(BundleError, match=r"preprocess\.onnx needs a description"):
        read_manifest(folder)


def test_the_description_is_strict() -> None:
    with pytest.raises(ValueError, match="gives"):
        ClassifierSpec.model_validate(SPEC | {"gives": "labels"})
