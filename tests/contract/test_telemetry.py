"""Nothing is reported to anyone: onnxruntime's telemetry is off before it can begin."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def files_left_by(module: str, home: Path, **environment: str) -> list[str]:
    """What onnxruntime leaves in a home folder when it comes in through `module`.

    Where it reports, it writes the number of the device there.
    """
    # Some of onnxruntime's own switches depend on CI being set, as it may be around these tests.
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in {"CI", "ORT_DISABLE_TELEMETRY"} and not name.startswith("XDG_")
    }
    code = f"import {module}, onnxruntime; onnxruntime.SessionOptions()"
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=kept | {"HOME": str(home)} | environment,
        check=True,
    )
    return [path.name for path in home.rglob("*") if "icrosoft" in str(path) and path.is_file()]


@pytest.mark.parametrize("module", ["app.sessions", "training.export"])
def test_onnxruntime_reports_nothing(module: str, tmp_path: Path) -> None:
    assert files_left_by(module, tmp_path) == []


def test_the_environment_has_the_last_word(tmp_path: Path) -> None:
    code = "import app, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"ORT_DISABLE_TELEMETRY": "0"},
        capture_output=True,
        text=True,
    )
    assert result.stdout.strip() == "0"
