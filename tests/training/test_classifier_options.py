from pathlib import Path

import pytest

from training.classifier_options import ClassifierOptions, labels_of, options_of
from training.cli import parser

RUN = ["run", "hardened", "--data", "d"]


def options(*arguments: str) -> ClassifierOptions | None:
    return options_of(parser().parse_args([*RUN, *arguments]))


def test_without_a_classifier_there_are_none() -> None:
    assert options() is None
    with pytest.raises(ValueError, match="--scale, --channel-order: only with --classifier"):
        options("--scale", "255", "--channel-order", "bgr")


def test_what_is_left_out_is_plain() -> None:
    assert options("--classifier", "c.onnx") == ClassifierOptions(source="c.onnx")


def test_everything_can_be_said() -> None:
    found = options(
        "--classifier", "pkg.mod:net", "--weights", "w.pt", "--scale", "255", "--mean", "1,2,3",
        "--std", "4", "--channel-order", "bgr", "--layout", "hwc", "--gives", "probabilities",
        "--output", "out",
    )  # fmt: skip
    assert found == ClassifierOptions(
        "pkg.mod:net", Path("w.pt"), 255, (1, 2, 3), (4,), "bgr", "hwc", "probabilities", "out"
    )
    assert found.settings() == {
        "scale": 255,
        "mean": [1, 2, 3],
        "std": [4],
        "channel_order": "bgr",
        "layout": "hwc",
        "gives": "probabilities",
        "output": "out",
    }


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--mean", "1;2"], "--mean wants numbers by commas"),
        (["--scale", "0"], "--scale must be above 0"),
        (["--std", "1,0,1"], "--std must be above 0"),
    ],
)
def test_a_senseless_number_is_named(arguments: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        options("--classifier", "c.onnx", *arguments)


def test_labels_come_from_the_command_or_from_a_file(tmp_path: Path) -> None:
    assert labels_of(None) is None
    assert labels_of("cat, dog") == ("cat", "dog")
    (tmp_path / "labels.txt").write_text("dog\ncat, tabby\n\n")
    assert labels_of(str(tmp_path / "labels.txt")) == ("dog", "cat, tabby")
    with pytest.raises(ValueError, match="two labels or more, each once, got a, a"):
        labels_of("a,a")
    with pytest.raises(ValueError, match="--labels nowhere: cannot be read"):
        labels_of("nowhere")
