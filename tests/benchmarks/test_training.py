from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.stage_speed import IMAGES_FILE, stages_of
from benchmarks.training import Speeds, Way, digits, main, measured, report
from training.recipe_book import RECIPES

STAGES = list(stages_of(RECIPES["paper"]["ink"]))


def test_digits_are_drawn_in_several_hands() -> None:
    images = digits(25)
    assert images.shape == (25, 1, 28, 28)
    assert images.dtype == np.uint8
    assert not np.array_equal(images[3], images[13])
    colour = digits(12, colour=True)
    assert colour.shape == (12, 3, 32, 32) and colour.dtype == np.uint8
    assert not np.array_equal(colour[:, 0], colour[:, 1])


def test_several_processes_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    np.save(tmp_path / IMAGES_FILE, digits(17))
    found = measured(tmp_path / IMAGES_FILE, Way(2), "paper", "ink", "cpu")
    assert list(found.images_per_s) == STAGES
    assert all(rate > 0 for rate in found.images_per_s.values())
    assert len(found.memory_mib) == 2
    assert all(50 < memory < 5000 for memory in found.memory_mib)
    assert found.gpu_memory_mib == ()
    assert [path.name for path in tmp_path.iterdir()] == [IMAGES_FILE]


def test_a_recipe_for_colour_is_measured_by_one_process(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(
        [
            "--processes",
            "1",
            "--recipe",
            "paper",
            "--images",
            "photo",
            "--count",
            "16",
            "--rounds",
            "1",
        ]
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("Recipe paper for photo, 16 images an epoch, rounds: 1")
    assert [line.split(" | ")[0] for line in lines[-5:-1]] == [f"| {stage}" for stage in STAGES]


def test_bfloat16_is_compared_with_float32_and_encoders_are_a_stage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--bfloat16", "--recipe", "hardened", "--images", "object"]
    main([*options, "--count", "12", "--rounds", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert (
        "| stage | 1 process, float32, images/s | 1 process, bfloat16, images/s | ratio |" in lines
    )
    assert [line.split(" | ")[0] for line in lines[-3:-1]] == ["| student", "| student_encoder"]
    assert all(line.count("|") == 5 for line in lines[-6:])


def speeds(rate: float, *memory: float, gpu: tuple[float, ...] = ()) -> Speeds:
    return Speeds({stage: rate for stage in STAGES}, memory, gpu)


@pytest.mark.parametrize("busy", [False, True])
def test_the_table_sets_both_side_by_side(busy: bool) -> None:
    found = {
        Way(1): [speeds(100, 400.4), speeds(110, 410)],
        Way(2): [speeds(150, 300, 310), speeds(220, 320, 305)],
    }
    options = Namespace(recipe="paper", images="ink", count=64, rounds=2, device="cpu")
    lines = list(report(found, options, 2.0 if busy else 0.1))
    assert "rounds: 2" in lines[1]
    assert lines[1].startswith("Recipe paper for ink, 64 images an epoch")
    assert any("Not to be used" in line for line in lines) is busy
    assert "| stage | 1 process, images/s | 2 processes, images/s | ratio |" in lines
    assert "| student | 105 (100 to 110) | 185 (150 to 220) | 1.75 (1.5 to 2) |" in lines
    assert lines[-1] == "| peak memory of each process, MiB | 410 | 320, 310 | |"


def test_the_table_shows_the_memory_of_gpus() -> None:
    found = {Way(1): [speeds(1, 2, gpu=(30,))], Way(2): [speeds(1, 2, 2, gpu=(20, 21))]}
    options = Namespace(recipe="paper", images="ink", count=64, rounds=1, device="cpu")
    assert list(report(found, options, 0))[-1] == "| peak memory on each GPU, MiB | 30 | 20, 21 | |"


def test_one_process_alone_is_a_table_too() -> None:
    options = Namespace(recipe="paper", images="object", count=64, rounds=1, device="cpu")
    lines = list(report({Way(1): [speeds(100, 400, gpu=(30,))]}, options, 0))
    assert "| stage | 1 process, images/s |" in lines
    assert "|---|---:|" in lines
    assert "| student | 100 (100 to 100) |" in lines
    assert lines[-1] == "| peak memory on each GPU, MiB | 30 |"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--processes", "0"], "must be at least 1"),
        (["--count", "9"], "--count 10"),
        (["--device", "cuda", "--processes", "99"], "a GPU for each of --processes 99; found: "),
        (["--bfloat16", "--processes", "3"], "not allowed with argument"),
    ],
)
def test_what_cannot_be_measured_is_told_at_once(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err
