"""Imports point one way, and the service needs nothing that trains."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MODULES = (
    "app/__init__.py",
    "app/main.py",
    "app/routes/__init__.py",
    "app/service.py",
    "app/images.py",
    "app/batching.py",
    "app/engine.py",
    "app/bundle.py",
    "app/errors.py",
    "training/__init__.py",
    "training/data.py",
)


def run_python(code: str, *arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True
    )


def run_linter(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command as lint; lint(['--no-cache'])"
    return run_python(code, folder=folder)


def test_import_contracts_hold() -> None:
    result = run_linter(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture
def skeleton(tmp_path: Path) -> Path:
    """A project of empty modules under our contracts, with the imports that training may use."""
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    for name in MODULES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "training/data.py").write_text("import app.bundle\nimport app.images\n")
    return tmp_path


def test_what_the_contracts_allow_passes(skeleton: Path) -> None:
    result = run_linter(skeleton)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("app/bundle.py", "import torch"),
        ("app/routes/__init__.py", "import training.data"),
        ("app/images.py", "import app.routes"),
        ("app/errors.py", "import app.bundle"),
        ("app/images.py", "import app.engine"),
        ("training/data.py", "import app.service"),
    ],
)
def test_a_wrong_import_breaks_a_contract(skeleton: Path, module: str, line: str) -> None:
    (skeleton / module).write_text(line + "\n")
    result = run_linter(skeleton)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "BROKEN" in result.stdout


def test_the_service_imports_where_nothing_that_trains_is_installed() -> None:
    code = """
import sys
for name in ("torch", "onnx", "onnxscript", "safetensors", "matplotlib", "pyautoattack"):
    sys.modules[name] = None  # importing it raises ImportError
import app.server, app.worker
print("training" in sys.modules)
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "False"
