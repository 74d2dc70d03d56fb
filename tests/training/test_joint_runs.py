"""`limbeck-train` under torchrun."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import torch

from app.bundle import WEIGHTS_FILE, read_manifest
from tests.training.joint_training import start, torchrun
from tests.training.outcomes import lines_of, whole_manifest
from training import commands
from training.cli import main
from training.processes import Processes
from training.run import Run

SHAPES = ("classifier", "teacher", "student")
STAGES = ("classifier", "normal_teacher", "adversarial_teacher", "distillation")
SETTINGS = (
    *(f"{name}.{setting}" for name in SHAPES for setting in ("widths=[4]", "depths=[0]")),
    *(f"{name}.schedule.epochs=1" for name in STAGES),
    "surrogate.epochs=1",
    "encoder.schedule.epochs=1",
    "surrogate_encoder.epochs=1",
)
OVERRIDES = [part for setting in SETTINGS for part in ("--set", setting)]


def command_of(data: Path, folder: Path, *more: str) -> list[str]:
    """A run of a recipe into the folder."""
    where = ["--data", str(data), "--out", str(folder / "models"), "--work", str(folder / "work")]
    return ["run", "hardened", *where, *OVERRIDES, "--no-evaluate", "--device", "cpu", *more]


def finish(*arguments: str) -> list[str]:
    """The lines that a command prints which two processes share."""
    return lines_of(start(torchrun("training", *arguments)), timeout_s=200)


@pytest.fixture(scope="module")
def whole(digit_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder of a run that two processes shared, and what it printed."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, finish(*command_of(digit_data, folder))


def test_two_processes_end_with_one_bundle(whole: tuple[Path, list[str]]) -> None:
    folder, lines = whole
    bundle = folder / "models" / "digits" / "1"
    manifest = whole_manifest(bundle)
    assert manifest.provenance.machine.endswith(", 2 processes of 1 thread")
    assert [path.name for path in bundle.parent.iterdir()] == ["1"]
    assert lines[0].startswith("digits: 200 training and 100 test images")
    assert lines[-1] == f"wrote {bundle}"
    assert len([line for line in lines if ": epoch" in line]) == 12
    assert len(lines) == len(set(lines))


def test_two_processes_go_on_to_the_same_weights(whole: tuple[Path, list[str]]) -> None:
    folder, _ = whole
    stages = [path.stem for path in (folder / "work").glob("*.pt")]
    upstream = {"classifier", "normal_teacher", "adversarial_teacher"}
    for name in set(stages) - upstream:
        (folder / "work" / f"{name}.pt").unlink()
    lines = finish("resume", str(folder / "work"))
    found = {line.split(":")[0] for line in lines if line.endswith("found 1 of 1 epochs done")}
    assert found == upstream
    assert lines[-1].endswith("has these weights already")
    bundle = folder / "models" / "digits" / "1"
    assert WEIGHTS_FILE in read_manifest(bundle).files


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Make this the second of two processes that only pretend to train; gives their runs."""
    runs: list[Run] = []

    def joined(processes: Processes, device: torch.device) -> AbstractContextManager[None]:
        return nullcontext()

    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Processes, "joined", joined)
    monkeypatch.setattr(commands, "run_stages", runs.append)
    return runs


def test_a_process_that_does_not_lead_trains_and_leaves(
    second: list[Run], digit_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [part for part in command_of(digit_data, tmp_path) if part != "--no-evaluate"]
    assert main(arguments) == 0
    assert [run.processes for run in second] == [Processes(1, 1, 2)]
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_batches_that_cannot_be_shared_are_refused_before_any_training(
    second: list[Run], digit_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command_of(digit_data, tmp_path, "--set", "ablation.batch_size=33")) == 1
    assert "ablation.batch_size: a batch of 33 images" in capsys.readouterr().err
    assert second == []
    assert list(tmp_path.iterdir()) == []


def test_a_process_without_a_gpu_of_its_own_is_refused(
    second: list[Run],
    digit_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert main([*command_of(digit_data, tmp_path), "--device", "cuda"]) == 1
    assert "process 1 of this machine has no GPU, there are 1" in capsys.readouterr().err


def test_each_process_has_a_gpu_of_its_own(
    second: list[Run], digit_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert main([*command_of(digit_data, tmp_path), "--device", "cuda"]) == 0
    assert [run.device for run in second] == [torch.device("cuda", 1)]
    assert chosen == [1]


def test_what_is_one_process_s_work_is_refused(
    second: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(tmp_path), str(tmp_path)]) == 1
    assert "compare is not shared by 2 processes; run and resume are" in capsys.readouterr().err
