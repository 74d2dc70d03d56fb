from pathlib import Path
from typing import NoReturn

import pytest
import torch

from tests.training.full_disk import full_disk
from training.checkpoints import Checkpoint, CheckpointError, fingerprint


def test_a_state_comes_back(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "deep" / "student.pt", "mine")
    assert checkpoint.load() is None
    checkpoint.save({"epoch": 2, "network": {"weight": torch.arange(3)}, "average": None})
    state = checkpoint.load()
    assert state is not None
    assert state.keys() == {"epoch", "network", "average"}
    assert state["epoch"] == 2
    assert torch.equal(state["network"]["weight"], torch.arange(3))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["student.pt"]


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "student.pt"
    Checkpoint(path, "mine").save({"epoch": 1})
    with pytest.raises(CheckpointError, match=r"student\.pt.*other settings.*--work"):
        Checkpoint(path, "another").load()
    assert Checkpoint(path, "mine").load() == {"epoch": 1}


def test_a_checkpoint_of_other_validation_images_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "student.pt"
    Checkpoint(path, "mine", "these").save({"epoch": 1})
    with pytest.raises(CheckpointError, match=r"student\.pt.*for validation: files were renamed"):
        Checkpoint(path, "mine", "those").load()
    assert Checkpoint(path, "mine", "these").load() == {"epoch": 1}


def test_a_checkpoint_of_before_validation_images_were_noted_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "student.pt"
    torch.save({"identity": "mine", "epoch": 1}, path)
    assert Checkpoint(path, "mine", "these").load() == {"epoch": 1}


class Dying:
    """A value that stops the process's saving half-way."""

    def __reduce__(self) -> NoReturn:
        raise KeyboardInterrupt


def test_a_crash_while_saving_leaves_the_old_state(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "student.pt", "mine")
    checkpoint.save({"epoch": 1, "network": torch.zeros(1000)})
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save({"epoch": 2, "network": torch.ones(1000), "rest": Dying()})
    state = checkpoint.load()
    assert state is not None and state["epoch"] == 1
    checkpoint.save({"epoch": 2})
    assert checkpoint.load() == {"epoch": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["student.pt"]


@pytest.mark.parametrize("keep", [0, 10, 500, -1])
def test_a_damaged_file_is_named(tmp_path: Path, keep: int) -> None:
    checkpoint = Checkpoint(tmp_path / "student.pt", "mine")
    checkpoint.save({"epoch": 1, "network": torch.zeros(1000)})
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"student\.pt cannot be read; remove it"):
        checkpoint.load()


def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "student.pt", "mine")
    checkpoint.save({"epoch": 1, "network": torch.zeros(1000)})
    content = checkpoint.path.read_bytes()
    for place in range(0, len(content), 97):
        flipped = bytearray(content)
        flipped[place] ^= 0x80
        checkpoint.path.write_bytes(flipped)
        try:
            state = checkpoint.load()  # there are bytes that nothing hangs on
            assert state is not None and torch.equal(state["network"], torch.zeros(1000))
        except CheckpointError as error:
            assert "student.pt cannot be read; remove it" in str(error)


def test_a_file_of_another_program_is_named(tmp_path: Path) -> None:
    path = tmp_path / "student.pt"
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=r"student\.pt cannot be read"):
        Checkpoint(path, "mine").load()


def test_a_full_disk_leaves_the_old_state_and_is_told_with_the_name(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "student.pt", "mine")
    checkpoint.save({"epoch": 1})
    with full_disk(), pytest.raises(OSError, match=r"student\.pt"):
        checkpoint.save({"epoch": 2, "network": torch.ones(1000)})
    assert checkpoint.load() == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["student.pt"]


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "student.pt"
    torch.save({"identity": "mine", "path": tmp_path}, path)  # an object, not only data
    with pytest.raises(CheckpointError, match="cannot be read"):
        Checkpoint(path, "mine").load()


def test_a_fingerprint_tells_settings_apart() -> None:
    settings = {"epochs": 3, "widths": [4, 8]}
    assert fingerprint("student", settings, 0) == fingerprint("student", dict(settings), 0)
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    others = [
        fingerprint("teacher", settings, 0),
        fingerprint("student", settings, 1),
        fingerprint("student", {**settings, "epochs": 4}, 0),
        fingerprint("student", settings, 0, ["upstream"]),
    ]
    assert len({fingerprint("student", settings, 0), *others}) == 5
