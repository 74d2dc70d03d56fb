from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.stage_speed import IMAGES_FILE, STAGES
from benchmarks.training import Speeds, digits, measured, report


def test_digits_are_drawn_in_several_hands() -> None:
    images = digits(25)
    assert images.shape == (25, 1, 28, 28)
    assert images.dtype == np.uint8
    assert not np.array_equal(images[3], images[13])


def test_several_processes_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    np.save(tmp_path / IMAGES_FILE, digits(17))
    found = measured(tmp_path / IMAGES_FILE, 2, "paper", "cpu")
    assert list(found.images_per_s) == list(STAGES)
    assert all(rate > 0 for rate in found.images_per_s.values())
    assert len(found.memory_mib) == 2
    assert all(50 < memory < 5000 for memory in found.memory_mib)
    assert found.gpu_memory_mib == ()
    assert [path.name for path in tmp_path.iterdir()] == [IMAGES_FILE]


def speeds(rate: float, *memory: float, gpu: tuple[float, ...] = ()) -> Speeds:
    return Speeds({stage: rate for stage in STAGES}, memory, gpu)


@pytest.mark.parametrize("busy", [False, True])
def test_the_table_sets_both_side_by_side(busy: bool) -> None:
    found = {
        1: [speeds(100, 400.4), speeds(110, 410)],
        2: [speeds(150, 300, 310), speeds(220, 320, 305)],
    }
    options = Namespace(recipe="hardened", images=64, rounds=2, device="cpu")
    lines = list(report(found, options, 2.0 if busy else 0.1))
    assert "rounds: 2" in lines[1]
    assert any("Not to be used" in line for line in lines) is busy
    assert "| stage | 1 process, images/s | 2 processes, images/s | ratio |" in lines
    assert "| student | 105 (100 to 110) | 185 (150 to 220) | 1.75 (1.5 to 2) |" in lines
    assert lines[-1] == "| peak memory of each process, MiB | 410 | 320, 310 | |"


def test_the_table_shows_the_memory_of_gpus() -> None:
    found = {1: [speeds(1, 2, gpu=(30,))], 2: [speeds(1, 2, 2, gpu=(20, 21))]}
    options = Namespace(recipe="hardened", images=64, rounds=1, device="cpu")
    assert list(report(found, options, 0))[-1] == "| peak memory on each GPU, MiB | 30 | 20, 21 | |"
