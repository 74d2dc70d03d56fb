import re
import subprocess
from pathlib import Path

import pytest
import torch

from app.bundle import Provenance
from tests.training.tiny_runs import tiny_run
from training.provenance import git_commit, machine, provenance_of
from training.recipes import recipe_of
from training.stages import train_classifier

ROOT = Path(__file__).parents[2]


def test_a_run_can_be_repeated_from_its_provenance(tmp_path: Path) -> None:
    run = tiny_run(tmp_path)
    train_classifier(run, "classifier", 0)
    found = provenance_of(run, "limbeck-train run hardened")
    assert Provenance.model_validate_json(found.model_dump_json()) == found
    assert recipe_of(found.settings) == run.recipe
    assert (found.recipe, found.seed) == ("hardened", 0)
    assert (found.data_name, found.data_sha256) == ("halves", "0" * 64)
    assert found.command == "limbeck-train run hardened"
    assert found.versions["torch"] == torch.__version__.partition("+")[0] or (
        found.versions["torch"] == torch.__version__
    )
    assert found.stage_seconds.keys() == {"classifier"}
    assert found.stage_seconds["classifier"] >= 0


def test_the_commit_is_that_of_this_tree() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not in a git checkout")
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (git_commit() or "").removesuffix("+") == head.stdout.strip()


def test_outside_of_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert git_commit() is None


def test_the_machine_is_named() -> None:
    alone, shared = machine(torch.device("cpu")), machine(torch.device("cpu"), processes=2)
    assert machine(torch.device("cpu"), precision=torch.bfloat16) == f"{alone}, bfloat16"
    assert "CPU cores, " in alone
    assert shared == re.sub(r"(\d+ threads?)$", r"2 processes of \1", alone)
