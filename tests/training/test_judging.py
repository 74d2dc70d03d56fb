"""Quick runs, saved examples and what is counted again, by the command line."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from app.bundle import CARD_FILE, MANIFEST_FILE, digest
from tests.training.digit_bundles import without_weights
from training.cli import main
from training.onnx_importer import OPERATORS
from training.publication import replace_files

LIMITS = ["--device", "cpu", "--threads", "1"]


def _evaluate(bundle: Path, data: Path, *more: str) -> int:
    n = ["--n", "30", "--quick"]
    return main(["evaluate", str(bundle), "--data", str(data), *n, *LIMITS, *more])


def _recount(path: Path, bundle: Path, data: Path, *more: str) -> int:
    where = [str(bundle), "--data", str(data), *LIMITS]
    return main(["evaluate", *where, "--recount", str(path), *more])


@pytest.fixture
def saved(
    digit_bundle: Path, digit_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Path:
    """Examples of two attacks, at an epsilon that some images withstand."""
    path = tmp_path / "examples" / "found.npy"
    arguments = ["--attack", "fgsm,apgd-ce", "--epsilon", "0.03", "--save", str(path)]
    assert _evaluate(digit_bundle, digit_data, *arguments) == 0
    capsys.readouterr()
    return path


def test_single_attacks_are_estimated_printed_and_leave_no_card(
    digit_bundle: Path, digit_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--attack", "fgsm,square", "--state", str(tmp_path / "state")]
    assert _evaluate(digit_bundle, digit_data, *arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("fgsm, square on 30 images: at most about ")
    interval = r"\d+\.\d % \(\d+\.\d % to \d+\.\d %\)"
    attacked = "n = 30, L∞ 0.3, seed 0, "
    for title, end in (("Clean, purified", "n = 100$"), ("FGSM, cross-entropy loss", attacked)):
        assert any(re.match(rf"{title}: {interval}, {end}", line) for line in lines), title
    assert lines[-1].startswith("Worst of them, image by image: ")
    assert not (digit_bundle / CARD_FILE).exists()
    # A second run finds what was kept.
    assert _evaluate(digit_bundle, digit_data, *arguments) == 0
    assert not [line for line in capsys.readouterr().out.splitlines() if line.endswith(" ...")]


def test_in_l2_the_radius_is_that_of_the_unseen_threat(
    digit_bundle: Path, digit_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--attack", "fgsm", "--norm", "l2", "--seed", "3"]
    assert _evaluate(digit_bundle, digit_data, *arguments) == 0
    assert ", n = 30, L2 2, seed 3, " in capsys.readouterr().out
    assert _evaluate(digit_bundle, digit_data, *arguments, "--epsilon", "0.5") == 0
    assert ", n = 30, L2 0.5, seed 3, " in capsys.readouterr().out


def test_grey_box_the_classifier_alone_is_attacked(
    digit_bundle: Path, digit_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "grey.npy"
    arguments = ["--attack", "fgsm", "--grey-box", "--save", str(path)]
    assert _evaluate(digit_bundle, digit_data, *arguments) == 0
    assert "on the classifier alone, then purified: " in capsys.readouterr().out
    assert _recount(path, digit_bundle, digit_data) == 0
    assert "the same images as when they were saved" in capsys.readouterr().out
    assert _evaluate(digit_bundle, digit_data, "--grey-box") == 1
    assert "--grey-box needs --attack" in capsys.readouterr().err


def test_saved_examples_are_plain_arrays_that_say_what_they_are(
    saved: Path, digit_bundle: Path
) -> None:
    images = np.load(saved, allow_pickle=False)
    assert images.shape == (30, 1, 28, 28) and images.dtype == np.float32
    described = json.loads(saved.with_suffix(".json").read_text())
    assert described["epsilon"] == 0.03 and len(described["labels"]) == 30
    assert described["attack"] == "FGSM, cross-entropy loss; APGD-CE"
    assert 0 < sum(described["standing"]) < 30


@pytest.mark.parametrize("source", ["weights", "onnx"])
def test_a_recount_finds_what_was_counted(
    source: str,
    saved: Path,
    digit_bundle: Path,
    digit_data: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _recount(saved, digit_bundle, digit_data, "--from", source) == 0
    lines = capsys.readouterr().out.splitlines()
    standing = sum(json.loads(saved.with_suffix(".json").read_text())["standing"])
    assert "at most L∞ 0.03 from their clean images, 0.03 allowed" in lines[0]
    assert lines[1].startswith(f"{standing} of 30 are classified correctly")
    assert lines[2] == "the same images as when they were saved"


def test_a_recount_without_weights_asks_the_served_files(
    saved: Path,
    digit_bundle: Path,
    digit_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = without_weights(digit_bundle, tmp_path / "bundle")
    assert _recount(saved, bundle, digit_data) == 0
    said, *_, last = capsys.readouterr().out.splitlines()
    assert said == "without weights.safetensors: judged are the files that the service runs"
    assert last == "the same images as when they were saved"


def _describe(path: Path, images: npt.NDArray[np.float32] | None = None, **changes: object) -> None:
    """Change the images, and what is said of them accordingly."""
    beside = path.with_suffix(".json")
    described = json.loads(beside.read_text())
    if images is not None:
        np.save(path, images)
        described["file"] = digest(path.read_bytes()).model_dump()
    beside.write_text(json.dumps({**described, **changes}))


def _too_far(path: Path) -> None:
    images = np.load(path)
    images[3, 0, 10, 10] = 1 - images[3, 0, 10, 10].round()
    _describe(path, images)


def _forged_count(path: Path) -> None:
    described = json.loads(path.with_suffix(".json").read_text())
    _describe(path, standing=[not stands for stands in described["standing"]])


def _other_image(path: Path) -> None:
    described = json.loads(path.with_suffix(".json").read_text())
    _describe(path, labels=[(label + 1) % 10 for label in described["labels"]])


def _unknown_image(path: Path) -> None:
    beside = path.with_suffix(".json")
    described = json.loads(beside.read_text())
    described["images"][0] = "0/none.png"
    beside.write_text(json.dumps(described))


def _other_bytes(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\1")


SPOILT: dict[str, Callable[[Path], None]] = {
    "an attack moved an image": _too_far,
    "answered otherwise than when they were saved": _forged_count,
    "has other labels than the saved images": _other_image,
    "no test image 0/none.png": _unknown_image,
    "these are not the images": _other_bytes,
    "standing has another number of images": lambda path: _describe(path, standing=[True]),
    "epsilon": lambda path: _describe(path, epsilon="much"),
}


@pytest.mark.parametrize("message", SPOILT)
def test_what_was_changed_is_not_counted(
    message: str,
    saved: Path,
    digit_bundle: Path,
    digit_data: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    SPOILT[message](saved)
    assert _recount(saved, digit_bundle, digit_data) == 1
    assert message in capsys.readouterr().err


def test_another_bundles_count_is_told_beside_the_first(
    saved: Path, digit_bundle: Path, digit_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    described = json.loads(saved.with_suffix(".json").read_text())
    other = {name: "0" * 64 for name in described["graphs"]}
    _describe(saved, graphs=other, bundle="other", version=4)
    assert _recount(saved, digit_bundle, digit_data) == 0
    standing = sum(described["standing"])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"they attacked other 4, where {standing} were"


def test_examples_of_another_program_are_counted(
    saved: Path, digit_bundle: Path, digit_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beside = saved.with_suffix(".json")
    described = json.loads(beside.read_text())
    beside.unlink()
    assert _recount(saved, digit_bundle, digit_data) == 1
    assert f"{beside} is not there: it names norm, epsilon" in capsys.readouterr().err
    beside.write_text(json.dumps({key: described[key] for key in ("norm", "epsilon", "images")}))
    assert _recount(saved, digit_bundle, digit_data) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("30 images by an attack; at most L∞ 0.03")
    assert lines[1].startswith(f"{sum(described['standing'])} of 30 are classified correctly")
    assert lines[2] == "the file does not say how many were before"
    _describe(saved, standing=described["standing"])
    assert _recount(saved, digit_bundle, digit_data) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"they attacked a bundle, where {sum(described['standing'])} were"


@pytest.mark.parametrize("kind", ["empty", "archive", "words", "one number", "none"])
def test_arrays_of_another_kind_are_named(
    kind: str, saved: Path, digit_bundle: Path, digit_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beside = saved.with_suffix(".json")
    described = json.loads(beside.read_text())
    images = np.load(saved)
    names = [] if kind == "none" else described["images"]
    beside.write_text(json.dumps({"norm": "linf", "epsilon": 0.03, "images": names}))
    if kind == "archive":
        with saved.open("wb") as file:
            np.savez(file, images)
    elif kind == "empty":
        saved.write_bytes(b"")
    else:
        others = {"words": np.array(["a"] * 30), "one number": np.float32(1), "none": images[:0]}
        np.save(saved, others[kind])
    assert _recount(saved, digit_bundle, digit_data) == 1
    assert f"{saved}: " in capsys.readouterr().err


def test_an_attack_of_ones_own_begins_as_the_manual_says(
    digit_bundle: Path, digit_data: Path
) -> None:
    manual = Path("docs/method.md").read_text()
    code = manual.split("```python\n")[1].split("```")[0]
    code = code.replace('"models/mnist/1"', repr(str(digit_bundle)))
    found: dict[str, Any] = {}
    exec(code.replace('"data/mnist"', repr(str(digit_data))), found)
    assert found["pipeline"](found["images"]).shape == (len(found["labels"]), 10)
    assert len(found["names"]) == len(found["labels"])


def test_other_test_images_than_the_cards_are_told(
    digit_bundle: Path, digit_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, fewer = tmp_path / "bundle" / "1", tmp_path / "fewer"
    shutil.copytree(digit_bundle, bundle)
    shutil.copytree(digit_data, fewer)
    assert _evaluate(bundle, digit_data) == 0
    card = json.loads((bundle / CARD_FILE).read_text())
    whole = json.dumps({**card, "quick": False}).encode()  # a trial's card is no measurement
    replace_files(bundle, {CARD_FILE: whole}, shift_threshold_bits=0.1)
    assert _evaluate(bundle, digit_data, "--attack", "fgsm") == 0
    assert "other test images" not in capsys.readouterr().out
    sorted((fewer / "test" / "3").iterdir())[0].unlink()
    assert _evaluate(bundle, fewer, "--attack", "fgsm") == 0
    told = "The bundle's own card was measured on other test images (digits)"
    assert told in capsys.readouterr().out
    assert _evaluate(bundle, fewer, "--out", str(tmp_path / "card")) == 0
    assert told in (tmp_path / "card" / "CARD.md").read_text()


def _figures(printed: str) -> list[str]:
    """The lines with an accuracy, without the time that it took."""
    return [re.sub(r"(n = \d+).*", r"\1", line) for line in printed.splitlines() if "n = " in line]


def test_from_the_graphs_come_the_same_figures(
    digit_bundle: Path, digit_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Neither weights nor training images are needed.
    bundle, data = without_weights(digit_bundle, tmp_path / "bundle"), tmp_path / "digits"
    shutil.copytree(digit_data / "test", data / "test")
    attacks = ["--attack", "apgd-ce,square", "--epsilon", "0.03"]
    assert _evaluate(digit_bundle, digit_data, *attacks) == 0
    weights = _figures(capsys.readouterr().out)
    state = ["--state", str(tmp_path / "state")]
    assert _evaluate(bundle, data, *attacks, *state) == 0
    said, estimate, *figures = capsys.readouterr().out.splitlines()
    assert said == "without weights.safetensors: judged are the files that the service runs"
    assert estimate.startswith("apgd-ce, square on 30 images: at most about ")
    printed = "\n".join(figures)
    graphs = _figures(printed)
    assert len(weights) == len(graphs) == 5
    assert graphs[:2] == weights[:2]
    for from_weights, from_graph in zip(weights[2:], graphs[2:], strict=True):
        # Two programs that compute the same differ in the last digits: by an image at most.
        shares = [float(line.split(": ")[1].split(" %")[0]) for line in (from_weights, from_graph)]
        assert shares[0] == pytest.approx(shares[1], abs=3.4)
    # A second run finds what was kept; asked for them, it says nothing of where they come from.
    assert _evaluate(bundle, data, *attacks, *state, "--from", "onnx") == 0
    printed = capsys.readouterr().out
    assert "without weights" not in printed
    assert _figures(printed) == graphs
    assert not [line for line in printed.splitlines() if line.endswith(" ...")]


def test_without_gradients_scores_alone_are_asked_for(
    digit_bundle: Path,
    digit_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(OPERATORS, "ReduceMean")
    bundle = without_weights(digit_bundle, tmp_path / "bundle")
    reason = "classifier.onnx cannot be differentiated (operators ReduceMean)"
    assert _evaluate(bundle, digit_data, "--attack", "pgd,square", "--from", "onnx") == 1
    errors = capsys.readouterr().err
    assert f"pgd needs gradients, but {reason}" in errors and "without them: square" in errors
    assert _evaluate(bundle, digit_data, "--attack", "square", "--from", "onnx") == 0
    assert "Square 100 queries: " in capsys.readouterr().out
    manifest = (bundle / MANIFEST_FILE).read_bytes()
    assert _evaluate(bundle, digit_data, "--from", "onnx") == 1
    assert f"{reason}, and the weights have no surrogate of it: a card" in capsys.readouterr().err
    assert (bundle / MANIFEST_FILE).read_bytes() == manifest


def test_weights_that_are_asked_for_must_be_there(
    digit_bundle: Path, digit_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = without_weights(digit_bundle, tmp_path / "bundle")
    assert _evaluate(bundle, digit_data, "--from", "weights") == 1
    errors = capsys.readouterr().err
    assert "weights.safetensors: is not there; --from onnx does without it" in errors


@pytest.mark.parametrize(
    "option",
    [
        ["--attack", "fgsm"],
        ["--grey-box"],
        ["--save", "other.npy"],
        ["--out", "card"],
        ["--state", "state"],
        ["--n", "30"],
        ["--seed", "1"],
        ["--epsilon", "0.03"],
        ["--norm", "l2"],
        ["--quick"],
    ],
)
def test_a_recount_refuses_what_it_has_no_use_for(
    option: list[str], digit_bundle: Path, digit_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _recount(Path("found.npy"), digit_bundle, digit_data, *option) == 1
    assert f"a file holds: leave {option[0]} out" in capsys.readouterr().err


def test_a_recount_of_nothing_is_named(
    digit_bundle: Path, digit_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _recount(Path("found.npy"), digit_bundle, digit_data) == 1
    assert "found.npy" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["labels.npy", "labels.json"])
def test_what_is_there_is_not_saved_over(
    name: str,
    digit_bundle: Path,
    digit_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / name).write_text("somebody's")
    arguments = ["--attack", "fgsm", "--save", str(tmp_path / "labels.npy")]
    assert _evaluate(digit_bundle, digit_data, *arguments) == 1
    assert f"{name} is there already; it was left as it is" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["somebody's"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--attack", "cw"], "no attack cw"),
        (["--save", "found.npy"], "--save needs --attack"),
        (["--attack", "fgsm", "--save", "found.png"], "saved as .npy"),
        (["--attack", "fgsm", "--out", "card"], "--out takes a card"),
        (["--attack", "fgsm", "--epsilon", "8"], "--epsilon is in [0, 1] pixel units"),
        (["--attack", "fgsm", "--save", f"{__file__}/found.npy"], "cannot be written to"),
        (["--attack", "fgsm", "--state", __file__], f"{__file__} cannot be written to"),
        (["--out", f"{__file__}/card"], f"{__file__} cannot be written to"),
        (["--state", __file__], f"{__file__} cannot be written to"),
    ],
)
def test_a_mistake_is_one_line_before_any_attack(
    arguments: list[str],
    message: str,
    digit_bundle: Path,
    digit_data: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _evaluate(digit_bundle, digit_data, *arguments) == 1
    printed = capsys.readouterr()
    assert message in printed.err
    assert " ..." not in printed.out
