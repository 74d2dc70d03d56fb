import os
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from app.bundle import CLASSIFIER_FILE, PURIFIER_FILE, WEIGHTS_FILE, read_manifest, read_verified
from tests.training.file_server import FileServer, serving
from tests.training.outcomes import lines_of, whole_manifest
from training.card import Card
from training.cli import INTERRUPTED, main
from training.digits import draw_digits, write_digit_dataset
from training.recipe_book import HARDENED, PAPER, PAPER_PHOTO, PURPOSES, RECIPES
from training.recipe_file import read_recipe, write_recipe
from training.recipes import overridden, recipe_of, settings_of
from training.resumption import ORDER_FILE, Order
from training.run import Run

# Enough for the evaluation to find the undefended classifier broken, and no more.
SETTINGS = (
    "classifier.widths=[8, 16, 32]",
    "classifier.depths=[0, 0, 0]",
    "classifier.schedule.epochs=15",
    "classifier.schedule.batch_size=16",
    "classifier.schedule.learning_rate=0.02",
    "classifier.schedule.augmentation.rotation_degrees=0",
    "classifier.schedule.augmentation.scale=0",
    "teacher.widths=[8]",
    "teacher.depths=[0]",
    "student.widths=[4]",
    "student.depths=[0]",
    "normal_teacher.schedule.epochs=2",
    "adversarial_teacher.schedule.epochs=2",
    "distillation.schedule.epochs=2",
    "encoder.schedule.epochs=1",
    "surrogate_encoder.epochs=1",
    "validation_fraction=0.1",
)
OVERRIDES = [part for setting in SETTINGS for part in ("--set", setting)]
ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "training"]
# One thread: how a sum is split between threads must not differ between the runs compared.
LIMITS = ["--device", "cpu", "--threads", "1", "--quick", "--n", "40"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty training images and ten test images of each digit."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    write_digit_dataset(folder, per_class=20)
    return folder


def training_command(digits: Path, folder: Path, *more: str) -> list[str]:
    """A whole training of everything into the folder."""
    where = ["--data", str(digits), "--out", str(folder / "models"), "--work", str(folder / "work")]
    return [*PROGRAM, "run", "hardened", *where, *OVERRIDES, *LIMITS, *more]


def start(command: list[str], folder: Path = ROOT) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_let_interrupt,
    )


def _let_interrupt() -> None:
    """A shell starts what runs in the background with Ctrl-C ignored, and that is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finish(command: list[str]) -> list[str]:
    """The lines of a command that ends well."""
    return lines_of(start(command))


def interrupt_at(command: list[str], line_start: str, folder: Path) -> tuple[int, str]:
    """Status and errors of a command in a folder that gets Ctrl-C when it prints a line."""
    process = start(command, folder)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(line_start):
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate()
    return process.returncode, errors


@pytest.fixture(scope="module")
def whole(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder of a training that nobody interrupted, and what it printed."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, finish(training_command(digits, folder))


def test_training_ends_with_a_bundle_and_its_card(whole: tuple[Path, list[str]]) -> None:
    folder, lines = whole
    bundle = folder / "models" / "digits" / "1"
    manifest = whole_manifest(bundle)
    assert manifest.labels == tuple("0123456789")
    assert manifest.input.shape == (1, 28, 28)
    assert manifest.shift_threshold_bits is not None
    provenance = manifest.provenance
    assert provenance.settings == settings_of(overridden(HARDENED, SETTINGS))
    assert provenance.command.startswith("limbeck-train run hardened --data ")
    assert provenance.versions.keys() >= {"python", "torch", "onnx", "numpy"}
    assert provenance.machine.endswith(", 1 thread")
    assert provenance.stage_seconds.keys() >= {"classifier", "student", "surrogate_purifier"}
    card = Card.model_validate_json(read_verified(bundle, manifest, "card.json"))
    assert card.quick and card.n == 40
    assert "CARD.md" in manifest.files
    assert f"wrote {bundle}" in lines


def test_progress_tells_costs_epochs_and_time_left(whole: tuple[Path, list[str]]) -> None:
    _, lines = whole
    assert lines[0].startswith("digits: 200 training and 100 test images of 28x28x1, 10 classes")
    assert "of the training images are for validation" in lines[1]
    assert sum("multiply-adds" in line for line in lines) == 3
    assert any(line.startswith("few optimizer steps") for line in lines)
    epochs = [line for line in lines if line.startswith("student: epoch")]
    assert len(epochs) == 2
    assert "end-to-end" in epochs[0] and epochs[0].endswith("left)")


def test_the_bundle_runs_without_pytorch(whole: tuple[Path, list[str]]) -> None:
    bundle = whole[0] / "models" / "digits" / "1"
    images = draw_digits(range(10), seed=5).astype(np.float32) / 255
    sessions = [
        onnxruntime.InferenceSession(bundle / name, providers=["CPUExecutionProvider"])
        for name in (PURIFIER_FILE, CLASSIFIER_FILE)
    ]
    (purified,) = sessions[0].run(["purified"], {"images": images})
    assert purified.shape == images.shape
    assert purified.min() >= 0 and purified.max() <= 1
    (logits,) = sessions[1].run(["logits"], {"images": images})
    assert logits.shape == (10, 10)
    assert (logits.argmax(1) == np.arange(10)).sum() >= 6


def test_a_finished_command_finds_its_bundle_again(
    whole: tuple[Path, list[str]], digits: Path
) -> None:
    folder, _ = whole
    lines = finish(training_command(digits, folder, "--no-evaluate"))
    assert not [line for line in lines if ": epoch" in line]
    assert lines[-1].endswith("has these weights already")
    assert [path.name for path in (folder / "models" / "digits").iterdir()] == ["1"]


def test_an_interrupted_training_goes_on_to_the_same_weights(
    whole: tuple[Path, list[str]], digits: Path, tmp_path: Path
) -> None:
    write_recipe(overridden(HARDENED, SETTINGS), tmp_path / "mine.toml")
    where = ["--data", os.path.relpath(digits, tmp_path), "--out", "models", "--work", "work"]
    command = [*PROGRAM, "run", "mine.toml", *where, *LIMITS, "--no-evaluate"]
    status, errors = interrupt_at(command, "adversarial_teacher: epoch 1/2", tmp_path)
    assert status == INTERRUPTED
    assert errors.startswith("stopped; the same command, or limbeck-train resume WORKDIR, goes on")
    assert not (tmp_path / "models").exists()
    (tmp_path / "mine.toml").unlink()
    lines = finish([*PROGRAM, "resume", str(tmp_path / "work")])
    assert "classifier: found 15 of 15 epochs done" in lines
    assert "adversarial_teacher: epoch 2/2" in "\n".join(lines)
    assert "adversarial_teacher: epoch 1/2" not in "\n".join(lines)
    resumed, uninterrupted = (folder / "models" / "digits" / "1" for folder in (tmp_path, whole[0]))
    for name in (WEIGHTS_FILE, PURIFIER_FILE, CLASSIFIER_FILE):
        assert (resumed / name).read_bytes() == (uninterrupted / name).read_bytes(), name
    provenance = read_manifest(resumed).provenance
    assert provenance.command == shlex.join(["limbeck-train", *command[len(PROGRAM) :]])
    assert provenance.settings == settings_of(overridden(HARDENED, SETTINGS))


def test_a_run_is_not_resumed_where_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["resume", str(tmp_path / "runs")]) == 1
    assert "runs holds no run to resume" in capsys.readouterr().err


def test_a_run_is_not_resumed_with_other_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_digit_dataset(tmp_path / "digits", per_class=10)
    command = ("run", "paper", "--data", "digits", "--threads", "1")
    settings = settings_of(PAPER)
    order = Order(command=command, folder=tmp_path, settings=settings, data_sha256="0" * 64)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / ORDER_FILE).write_text(order.model_dump_json())
    assert main(["resume", str(tmp_path / "work")]) == 1
    assert "the run began with 000000000000: it cannot go on" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "work").iterdir()] == [ORDER_FILE]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "distillation.epochs=3"], "no setting 'distillation.epochs'"),
        (["--name", "My Digits"], "a bundle cannot be called 'My Digits'"),
        (["--data", "nowhere"], "nowhere: cannot be read"),
        (["--grey", "--size", "100000"], "height"),
        (["--out", __file__], f"{__file__}/digits cannot be written to: Not a directory"),
        (["--set", "epsilon=8"], "recipe.epsilon must be above 0 and at most 1, got 8"),
        (["--grey"], "--grey changes the images only together with --size"),
    ],
)
def test_a_mistake_is_one_line_before_any_training(
    digits: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    where = ["--data", str(digits), "--out", str(tmp_path / "models"), "--work", str(tmp_path)]
    assert main(["run", "hardened", *where, *arguments]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("limbeck-train: ")
    assert message in errors
    assert list(tmp_path.iterdir()) == []


def test_a_version_that_is_taken_is_noticed_before_training(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models" / "digits" / "2").mkdir(parents=True)
    where = ["--data", str(digits), "--out", str(tmp_path / "models")]
    where += ["--work", str(tmp_path / "work"), "--version", "2"]
    assert main(["run", "hardened", *where]) == 1
    assert "digits/2 exists already; give another --version" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_too_few_test_images_are_noticed_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_digit_dataset(tmp_path / "few", per_class=2)
    arguments = ["--data", str(tmp_path / "few"), "--work", str(tmp_path / "work")]
    assert main(["run", "paper", *arguments]) == 1
    assert "few has 10 test images" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_a_missing_bundle_cannot_be_evaluated(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(tmp_path / "none"), "--data", str(digits)]) == 1
    assert "bundle.json: cannot be read" in capsys.readouterr().err


def test_every_shown_setting_can_be_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "hardened", "--images", "ink"]) == 0
    headline, *shown = capsys.readouterr().out.splitlines()
    assert headline == "hardened for ink: L-inf epsilon 0.3, seed 0"
    assert overridden(HARDENED, [line.strip() for line in shown if "name=" not in line]) == HARDENED
    assert len(shown) > 30


def test_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    recipes, hint = capsys.readouterr().out.split("\n\n")
    lines = recipes.splitlines()
    assert lines[::4] == [f"{name}: {purpose}" for name, purpose in PURPOSES.items()]
    assert all("ink: L-inf epsilon 0.3, attacks on" in line for line in lines[1::4])
    assert all("photo: L-inf epsilon 0.0313725, attacks on" in line for line in lines[2::4])
    assert all("object: L-inf epsilon 0.0313725, attacks on" in line for line in lines[3::4])
    assert "limbeck-train init <recipe>" in hint


def test_a_recipe_is_written_to_a_file_and_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    assert "wrote hardened.toml" in capsys.readouterr().out
    assert main(["init", "-o", "-"]) == 0
    assert capsys.readouterr().out == Path("hardened.toml").read_text()
    assert main(["init", "paper", "-o", "mine.toml"]) == 0
    assert read_recipe(Path("mine.toml")) == PAPER_PHOTO
    assert main(["init", "paper", "-o", "mine.toml"]) == 1
    assert "mine.toml is there already" in capsys.readouterr().err


def test_the_recipe_of_a_bundle_is_written(
    digit_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tmp_path / "found.toml"
    assert main(["init", str(digit_bundle), "-o", str(found)]) == 0
    settings = read_manifest(digit_bundle).provenance.settings
    assert settings_of(read_recipe(found)) == settings_of(recipe_of(settings))
    assert read_recipe(found) not in RECIPES["hardened"].values()
    capsys.readouterr()
    for wrong, reason in (
        ("hard", "no recipe 'hard': choose from"),
        (str(tmp_path), "bundle.json"),
    ):
        assert main(["init", wrong, "-o", "-"]) == 1
        assert reason in capsys.readouterr().err


def test_a_recipe_file_stands_for_a_recipe_and_can_be_overridden(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "mine.toml"
    write_recipe(replace(PAPER, name="mine"), recipe)
    where = ["--data", str(digits), "--work", str(tmp_path / "work")]
    assert main(["run", str(recipe), *where, "--set", "epoch=3"]) == 1
    assert "no setting 'epoch' in recipe mine" in capsys.readouterr().err
    assert main(["run", str(tmp_path / "none.toml"), *where]) == 1
    assert "none.toml: cannot be read" in capsys.readouterr().err


def test_public_data_is_fetched_from_the_mirror(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(FileServer({})) as server:
        assert main(["data", "mnist", "--out", str(tmp_path), "--mirror", server.url]) == 1
    assert "train-images-idx3-ubyte.gz: the server answers 404" in capsys.readouterr().err
    assert server.asked == [None]


@pytest.mark.parametrize("arguments", [[], ["runs"], ["run", "hardend", "--data", "d"], ["data"]])
def test_a_misspelt_command_is_explained(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert "usage: limbeck-train" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["run", "hardened"], ["--n", "0"]),
        (["run", "hardened"], ["--version", "0"]),
        (["run", "hardened"], ["--size", "-28"]),
        (["evaluate", "models/mnist/1"], ["--n", "-5"]),
        (["evaluate", "models/mnist/1"], ["--seed", "-1"]),
        (["evaluate", "models/mnist/1"], ["--epsilon", "0"]),
        (["evaluate", "models/mnist/1"], ["--epsilon", "nan"]),
        (["attack", "--url", "http://localhost"], ["--n", "0"]),
        (["attack", "--url", "http://localhost"], ["--seed", "-1"]),
        (["attack", "--url", "http://localhost"], ["--epsilon", "-0.1"]),
    ],
)
def test_a_number_that_cannot_be_is_explained(
    command: list[str], option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main([*command, "--data", "d", *option])
    assert raised.value.code == 2
    assert f"argument {option[0]}: must be " in capsys.readouterr().err


def test_no_threads_are_too_few(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(digits), "--work", str(tmp_path), "--threads", "0"]
    assert main(["run", "hardened", *arguments]) == 1
    assert "--threads must be at least 1, got 0" in capsys.readouterr().err


def test_the_precision_of_training_can_be_chosen(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[torch.dtype] = []

    def no_further(run: Run) -> None:
        asked.append(run.precision)
        raise KeyboardInterrupt

    monkeypatch.setattr("training.commands.run_stages", no_further)
    for precision in ([], ["--precision", "float32"], ["--precision", "bfloat16"]):
        arguments = ["--data", str(digits), "--work", str(tmp_path / str(len(asked)))]
        assert main(["run", "hardened", *arguments, *precision]) == INTERRUPTED
    assert asked == [torch.float32, torch.float32, torch.bfloat16]


def test_a_gpu_that_is_not_there_is_named(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    arguments = ["--data", str(digits), "--work", str(tmp_path), "--device", "cuda"]
    assert main(["run", "hardened", *arguments]) == 1
    assert "PyTorch finds no GPU here" in capsys.readouterr().err
