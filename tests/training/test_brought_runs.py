"""One command from a user's file to a bundle with its card."""

import json
import sys
from pathlib import Path

import pytest

from app.bundle import CARD_FILE, CLASSIFIER_FILE, WEIGHTS_FILE, read_manifest, read_verified
from tests.training.brought_classifiers import by_hand, dataset_of, write_images
from tests.training.tiny_runs import SPEC
from training.card import Card
from training.cli import main
from training.data import load_dataset
from training.onnx_importer import ImportedGraph
from training.recipe_book import PAPER
from training.recipes import settings_of
from training.resumption import Order, kept_order
from training.served_classifier import ImportedClassifier
from training.weights import networks_of

STAGES = ("normal_teacher.", "adversarial_teacher.", "distillation.", "", "")
SCHEDULES = ("schedule", "schedule", "schedule", "ablation", "surrogate")
SETTINGS = [
    *(
        f"{stage}{schedule}.{what}"
        for stage, schedule in zip(STAGES, SCHEDULES, strict=True)
        for what in ("epochs=1", "batch_size=16", "augmentation.rotation_degrees=0")
    ),
    "classifier.widths=[4]",
    "classifier.depths=[0]",
    "classifier.schedule.epochs=4",
    "classifier.schedule.batch_size=16",
    "teacher.widths=[4]",
    "teacher.depths=[0]",
    "student.widths=[4]",
    "student.depths=[0]",
    "validation_fraction=0.2",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Halves as files."""
    folder = tmp_path_factory.mktemp("data") / "halves"
    dataset = dataset_of(SPEC)
    write_images(dataset.train, folder / "train")
    write_images(dataset.test, folder / "test")
    return folder


def command(recipe: str, data: Path, folder: Path, content: bytes, *more: str) -> list[str]:
    (folder / "mine.onnx").write_bytes(content)
    where = ["--data", str(data), "--out", str(folder / "models"), "--work", str(folder / "work")]
    changes = [part for setting in SETTINGS for part in ("--set", setting)]
    brought = ["--classifier", str(folder / "mine.onnx")]
    limits = ["--device", "cpu", "--threads", "1", "--quick", "--n", "12"]
    return ["run", recipe, *where, *brought, *changes, *limits, *more]


def test_one_command_protects_a_classifier(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = by_hand(rounds=False)
    labels = ["--labels", "left,right,top"]
    assert main(command("hardened", data, tmp_path, content, "--no-evaluate", *labels)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "the recipe hardened for photo"
    assert "classifier: mine.onnx, SHA-256 " in lines[3]
    bundle = tmp_path / "models" / "halves" / "1"
    manifest = read_manifest(bundle)
    assert read_verified(bundle, manifest, CLASSIFIER_FILE) == content
    assert manifest.provenance.classifier is not None
    assert manifest.provenance.classifier["sha256"] == manifest.files[CLASSIFIER_FILE].sha256
    assert "classifier" not in manifest.provenance.stage_seconds
    network = networks_of(bundle, manifest)["classifier"]
    assert isinstance(network, ImportedClassifier) and isinstance(network.graph, ImportedGraph)
    # From either source an attack leaves the same images standing.
    standing = []
    where = ["evaluate", str(bundle), "--data", str(data), "--device", "cpu", "--threads", "1"]
    for source in ("weights", "onnx"):
        found = tmp_path / f"{source}.npy"
        how = ["--attack", "apgd-ce", "--n", "36", "--epsilon", "0.02", "--save", str(found)]
        assert main([*where, *how, "--from", source]) == 0, capsys.readouterr().err
        standing.append(json.loads(found.with_suffix(".json").read_text())["standing"])
        assert main([*where, "--recount", str(found), "--from", "onnx"]) == 0
        assert capsys.readouterr().out.endswith("the same images as when they were saved\n")
    assert sum(ours != theirs for ours, theirs in zip(*standing, strict=True)) <= 1
    # A command that was interrupted after its bundle was written finds it again.
    assert main(command("hardened", data, tmp_path, content, "--no-evaluate", *labels)) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("has these weights already")


def test_a_classifier_that_resists_by_itself_gets_a_card(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Halves differ by half of the range: 8/255 does not move one to another.
    content = by_hand(rounds=False)
    assert main(command("hardened", data, tmp_path, content)) == 0, capsys.readouterr().err
    bundle = tmp_path / "models" / "halves" / "1"
    card = Card.model_validate_json((bundle / CARD_FILE).read_bytes())
    assert card.row("bare_autoattack").accuracy == 1 and card.may_resist
    assert "steps_bare" in {check.key for check in card.checks}
    assert card.sweep.points[-1].bare < 0.5
    told = (
        "- unless the classifier was trained against attacks: the undefended classifier keeps 100"
    )
    assert told in (bundle / "CARD.md").read_text()


def test_the_card_of_a_classifier_without_gradients_says_so(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = by_hand(rounds=True)
    assert main(command("hardened", data, tmp_path, content)) == 1
    errors = capsys.readouterr().err
    assert "cannot be differentiated" in errors and "the recipe paper trains" in errors
    assert main(command("paper", data, tmp_path, content)) == 0, capsys.readouterr().err
    bundle = tmp_path / "models" / "halves-paper" / "1"
    manifest = read_manifest(bundle)
    assert b"stand_in_classifier" in read_verified(bundle, manifest, WEIGHTS_FILE)
    card = Card.model_validate_json(read_verified(bundle, manifest, "card.json"))
    assert card.row("bare_clean").accuracy == 1
    seen = {row.key: row.sees for row in (*card.rows, card.headline)}
    others = {row.sees for row in card.unseen} | {item.sees for item in card.detection}
    assert others | set(seen.values()) == {"nothing", "scores", "surrogate"}
    assert seen["end_to_end_autoattack"] == seen["worst_case"] == "surrogate"
    assert all(item.end_to_end.sees == "surrogate" for item in card.ablations)
    assert "cannot be differentiated" in card.omitted[0] and "BPDA" in card.omitted[0]
    page = read_verified(bundle, manifest, "CARD.md").decode()
    assert "**No attack here is a white-box attack.**" in page
    assert "Each model attacked with a surrogate's gradients" in page
    assert "with gradients" not in page and "full access" not in page

    again = ["evaluate", str(bundle), "--data", str(data), "--quick", "--n", "12"]
    assert main([*again, "--device", "cpu", "--threads", "1"]) == 0, capsys.readouterr().err
    fresh = Card.model_validate_json((bundle / "card.json").read_bytes())
    assert fresh.rows == card.rows

    # Its file is the same from either source, and so is the surrogate.
    once_more = [*again, "--device", "cpu", "--threads", "1", "--from", "onnx"]
    assert main(once_more) == 0, capsys.readouterr().err
    served = Card.model_validate_json((bundle / "card.json").read_bytes())
    assert served.source == "onnx" and served.headline.sees == "surrogate"
    assert "BPDA" in served.omitted[0]
    for before, after in zip(card.rows, served.rows, strict=True):
        assert abs(before.correct - after.correct) <= 1

    capsys.readouterr()
    assert main([*once_more, "--attack", "apgd-ce"]) == 0
    assert "none is a white-box attack" in capsys.readouterr().out
    (bundle / WEIGHTS_FILE).unlink()
    assert main(once_more) == 1
    assert "the weights have no surrogate of it: a card" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--labels", "left,right"], "train has classes that --labels lacks: top"),
        (["--labels", "top,right,left"], "on 100% with --labels left,right,top"),
        (["--labels", "a,left,right,top"], "gives 3 numbers an image, the data has 4 classes"),
        (["--scale", "0"], "--scale must be above 0"),
        (
            ["--size", "8"],
            "takes images of 1 channel(s), the images are of 8x8x3; give",
        ),
        (["--gives", "probabilities"], "leave --gives probabilities out"),
    ],
    ids=["labels", "order", "number", "scale", "colour", "kind"],
)
def test_a_mistake_is_one_line_before_any_training(
    data: Path,
    tmp_path: Path,
    arguments: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(command("hardened", data, tmp_path, by_hand(rounds=False), *arguments)) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("limbeck-train: ") and errors.count("\n") == 1
    assert reason in errors
    assert not (tmp_path / "work").exists()


def test_a_factory_is_found_from_another_folder_when_its_run_is_resumed(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, work = tmp_path / "begun", tmp_path / "work"
    begun.mkdir()
    (begun / "found_here.py").write_text("def made():\n    raise ValueError('found')\n")
    order = Order(
        command=("run", "paper", "--data", str(data), "--classifier", "found_here:made"),
        folder=begun,
        settings=settings_of(PAPER),
        data_sha256=load_dataset(data).sha256,
    )
    with kept_order(work, order):
        monkeypatch.setattr(sys, "path", sys.path.copy())
        monkeypatch.chdir(tmp_path)
        assert main(["resume", str(work)]) == 1
    assert "found_here:made: cannot be made: ValueError: found" in capsys.readouterr().err
