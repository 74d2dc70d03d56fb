from pathlib import Path

import pytest
import torch

from tests.training.tiny_runs import tiny_run
from training.introduction import introduce_networks


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


def test_float32_goes_without_saying(tmp_path: Path) -> None:
    assert "training in" not in introduced(tmp_path, torch.float32)
