from dataclasses import replace
from pathlib import Path

import pytest
import torch

from app.bundle import InputSpec
from tests.training.tiny_runs import tiny_run
from training.introduction import introduce_networks
from training.recipe_book import HARDENED


def introduced(work: Path, precision: torch.dtype) -> str:
    lines: list[str] = []
    run = tiny_run(work, report=lines.append)
    run.precision = precision
    introduce_networks(run)
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("known", "slowly"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, False),
        ({"avx512_bf16": False, "avx2": True}, True),
        ({}, False),  # nothing is known of it
    ],
)
def test_bfloat16_is_told_and_where_it_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: dict[str, bool], slowly: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    text = introduced(tmp_path, torch.bfloat16)
    assert "training in bfloat16" in text
    assert ("only emulates" in text) is slowly


@pytest.mark.parametrize(("side", "told"), [(28, False), (64, True)])
def test_that_a_picture_is_drawn_anew_is_told_of_large_ones(
    tmp_path: Path, side: int, told: bool
) -> None:
    lines: list[str] = []
    run = tiny_run(tmp_path, HARDENED, report=lines.append)
    run.dataset = replace(run.dataset, spec=InputSpec(channels=1, height=side, width=side))
    introduce_networks(run)
    assert ("--set student.pooled_maps=0" in "\n".join(lines)) is told


def test_float32_goes_without_saying(tmp_path: Path) -> None:
    assert "training in" not in introduced(tmp_path, torch.float32)
