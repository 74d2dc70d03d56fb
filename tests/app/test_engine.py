from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from app.bundle import CLASSIFIER_FILE, PURIFIER_FILE, BundleError, InputSpec, read_manifest
from app.engine import Engine, Outcome, Task, load_engine, warm_up
from app.errors import InferenceFailed
from tests.bundles import Design, classifier, make_bundle, purifier, replace_file, rewrite_manifest


def load(folder: Path) -> Engine:
    return load_engine(folder, read_manifest(folder), "cpu", 1)


def task(level: int, **wanted: bool) -> Task:
    return Task(np.full((1, 8, 8), level, np.uint8), **wanted)


def outcomes(engine: Engine, *tasks: Task) -> list[Outcome]:
    results = engine.run(tasks)
    assert all(isinstance(result, Outcome) for result in results)
    return [result for result in results if isinstance(result, Outcome)]


@pytest.fixture(scope="module")
def engine(models_dir: Path) -> Engine:
    return load(models_dir / "tiny" / "1")


def test_only_what_is_wanted_is_computed(engine: Engine) -> None:
    image, plain, after, nothing = outcomes(
        engine,
        task(102, purified_image=True),
        task(102, plain=True),
        task(102, purified=True),
        task(102),
    )
    assert image.purified_image is not None and image.purify_s is not None
    assert image.purified_image == pytest.approx(np.full((1, 8, 8), 0.2), abs=1e-6)
    assert (image.plain, image.purified, image.classify_s) == (None, None, None)
    assert plain.plain is not None and plain.plain.argmax() == 1
    assert (plain.purified_image, plain.purify_s) == (None, None)
    assert after.purified is not None and after.purified.argmax() == 0
    assert after.purified_image is None
    assert nothing == nothing and (nothing.purify_s, nothing.classify_s) == (None, None)


def test_a_mixed_batch_gives_what_each_image_gets_alone(engine: Engine) -> None:
    wishes = [
        {"purified_image": True},
        {"plain": True},
        {"purified": True, "plain": True},
        {"purified_image": True, "purified": True},
    ]
    tasks = [task(level, **wishes[level % 4]) for level in range(90, 110)]
    for together, single in zip(outcomes(engine, *tasks), tasks, strict=True):
        (alone,) = outcomes(engine, single)
        for name in ("purified_image", "plain", "purified"):
            first, second = getattr(together, name), getattr(alone, name)
            assert (first is None) == (second is None)
            if first is not None:
                assert first == pytest.approx(second, abs=1e-5)


def test_a_closed_engine_cannot_be_run(models_dir: Path) -> None:
    closed = load(models_dir / "tiny" / "1")
    closed.close()
    with pytest.raises(AttributeError):
        closed.run([task(102, plain=True)])


def test_levels_become_0_to_1(engine: Engine) -> None:
    (outcome,) = outcomes(engine, task(170, purified_image=True))
    assert outcome.purified_image is not None
    assert outcome.purified_image.max() == pytest.approx(170 / 255 * 3 - 1, abs=1e-6)


def test_an_image_without_a_finite_result_fails_alone(models_dir: Path) -> None:
    brittle = load(models_dir / "brittle" / "1")
    good, bad = brittle.run([task(10, plain=True), task(255, plain=True)])
    assert isinstance(good, Outcome)
    assert isinstance(bad, InferenceFailed)


def test_batches_are_run_before_serving(engine: Engine, models_dir: Path) -> None:
    folder = models_dir / "tiny" / "1"
    warm_up(engine, folder, read_manifest(folder), 3)


def with_graph(folder: Path, name: str, model: onnx.ModelProto) -> None:
    replace_file(folder, name, model.SerializeToString())


def renamed(model: onnx.ModelProto, old: str, new: str) -> onnx.ModelProto:
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in [*model.graph.input, *model.graph.output]:
        value.name = new if value.name == old else value.name
    return model


def with_extra_output(model: onnx.ModelProto) -> onnx.ModelProto:
    model.graph.output.append(helper.make_tensor_value_info("means", 1, ["N", 1]))
    return model


OTHER = Design(spec=InputSpec(channels=1, height=9, width=8))


@pytest.mark.parametrize(
    ("file", "model", "reason"),
    [
        (PURIFIER_FILE, purifier(OTHER), r"input has the shape \(None, 1, 9, 8\)"),
        (PURIFIER_FILE, purifier(Design(dynamic=False)), "no dynamic batch"),
        (PURIFIER_FILE, renamed(purifier(Design()), "images", "x"), "'images'"),
        (PURIFIER_FILE, classifier(Design()), "'purified'"),
        (CLASSIFIER_FILE, with_extra_output(classifier(Design())), "'logits'"),
    ],
    ids=["size", "fixed batch", "input name", "output name", "two outputs"],
)
def test_a_graph_that_contradicts_the_manifest_is_refused(
    tmp_path: Path, file: str, model: onnx.ModelProto, reason: str
) -> None:
    folder = make_bundle(tmp_path)
    with_graph(folder, file, model)
    with pytest.raises(BundleError, match=reason) as refused:
        load(folder)
    assert str(folder / file) in str(refused.value)


def test_a_graph_of_another_type_is_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    node = helper.make_node("Identity", ["images"], ["purified"])
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, ["N", 1, 8, 8])
        for name in ("images", "purified")
    ]
    graph = helper.make_graph([node], "doubles", values[:1], values[1:])
    opset = [helper.make_opsetid("", 17)]
    with_graph(folder, PURIFIER_FILE, helper.make_model(graph, opset_imports=opset, ir_version=9))
    with pytest.raises(BundleError, match=r"tensor\(double\)"):
        load(folder)


def test_labels_that_do_not_fit_the_graph_are_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path, design=Design(labels=("a", "b", "c", "d")))
    with pytest.raises(BundleError, match=r"output has the shape \(None, 3\)"):
        load(folder)


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    replace_file(folder, CLASSIFIER_FILE, b"no graph")
    with pytest.raises(BundleError, match=r"classifier\.onnx: onnxruntime refuses"):
        load(folder)


def test_a_changed_file_is_never_loaded(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    content = bytearray((folder / PURIFIER_FILE).read_bytes())
    content[-1] ^= 1
    (folder / PURIFIER_FILE).write_bytes(content)
    with pytest.raises(BundleError, match=r"purifier\.onnx: has SHA-256"):
        load(folder)


def test_open_sizes_are_settled_by_the_warm_up(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    model = purifier(Design())
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[2].dim_param = "H"
    with_graph(folder, PURIFIER_FILE, model)
    manifest = read_manifest(folder)
    warm_up(load_engine(folder, manifest, "cpu", 1), folder, manifest, 1)


def test_a_graph_that_fails_is_found_by_the_warm_up(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    model = classifier(Design())
    # It fits the manifest, but looks for a sixth image in every batch.
    model.graph.initializer.append(helper.make_tensor("sixth", onnx.TensorProto.INT64, [1], [5]))
    row = helper.make_node("Gather", ["means", "sixth"], ["row"], axis=0)  # (1, 1)
    model.graph.node.insert(len(model.graph.node) - 1, row)
    model.graph.node[-1].input.append("row")
    with_graph(folder, CLASSIFIER_FILE, model)
    manifest = read_manifest(folder)
    with pytest.raises(BundleError, match="a batch of 1 fails"):
        warm_up(load_engine(folder, manifest, "cpu", 1), folder, manifest, 1)


def test_a_result_that_is_never_finite_is_found_by_the_warm_up(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    model = classifier(Design(poison=True))
    for node in model.graph.node:
        if node.op_type == "Sub":
            node.input[0] = "means"  # the logarithm of 0, for every image
    with_graph(folder, CLASSIFIER_FILE, model)
    manifest = read_manifest(folder)
    with pytest.raises(BundleError, match="not finite"):
        warm_up(load_engine(folder, manifest, "cpu", 1), folder, manifest, 1)


def test_the_manifest_of_another_input_is_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    rewrite_manifest(folder, input={"channels": 3, "height": 8, "width": 8})
    with pytest.raises(BundleError, match="manifest says"):
        load(folder)
