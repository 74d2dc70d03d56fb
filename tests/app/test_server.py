"""Starts that must fail, each with its reason; `tests/e2e/test_server.py` has the rest."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.listener import bind
from app.server import run
from app.statuses import STARTUP_FAILED
from tests.bundles import make_bundle, rewrite_manifest

Refusal = Callable[..., str]


@pytest.fixture
def refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Refusal]:
    """Starts the command with settings that must make it fail; gives what it said."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    for name in os.environ:
        if name.startswith("LIMBECK_"):
            monkeypatch.delenv(name)

    def start(models_dir: Path, **settings: object) -> str:
        chosen = {"models_dir": models_dir, "device": "cpu", "max_batch_size": 1, "port": 0}
        for name, value in (chosen | settings).items():
            monkeypatch.setenv(f"LIMBECK_{name.upper()}", str(value))
        assert run([]) == STARTUP_FAILED
        said = capsys.readouterr().err
        assert said.startswith("limbeck-serve cannot start: ") and said.count("\n") == 1
        return said

    yield start
    root.handlers[:], root.level = handlers, level


def test_a_missing_file_is_named(tmp_path: Path, refusal: Refusal) -> None:
    folder = make_bundle(tmp_path)
    (folder / "classifier.onnx").unlink()
    assert f"{folder / 'classifier.onnx'}: cannot be read" in refusal(tmp_path)


def test_a_manifest_of_a_newer_schema_is_named(tmp_path: Path, refusal: Refusal) -> None:
    folder = make_bundle(tmp_path)
    rewrite_manifest(folder, schema_version=2)
    assert f"{folder / 'bundle.json'}: has schema version 2" in refusal(tmp_path)


def test_shapes_that_contradict_the_manifest_are_named(tmp_path: Path, refusal: Refusal) -> None:
    folder = make_bundle(tmp_path)
    rewrite_manifest(folder, input={"channels": 1, "height": 9, "width": 9})
    assert f"{folder / 'purifier.onnx'}: its input has the shape" in refusal(tmp_path)


def test_a_folder_without_bundles_is_named(tmp_path: Path, refusal: Refusal) -> None:
    assert f"{tmp_path}: holds no bundle" in refusal(tmp_path)


def test_a_misspelt_setting_is_named(models_dir: Path, refusal: Refusal) -> None:
    said = refusal(models_dir, devise="cpu")
    assert "LIMBECK_DEVISE is no setting; did you mean LIMBECK_DEVICE?" in said


def test_a_device_that_does_not_load_is_named(models_dir: Path, refusal: Refusal) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a GPU")
    assert "the device cuda needs onnxruntime's CUDAExecutionProvider" in refusal(
        models_dir, device="cuda"
    )


def test_an_address_in_use_is_named(models_dir: Path, refusal: Refusal) -> None:
    taken = bind("127.0.0.1", 0)
    taken.listen()
    port = taken.getsockname()[1]
    said = refusal(models_dir, port=port)
    taken.close()
    assert f"127.0.0.1:{port}: Address already in use" in said


def test_an_admin_address_in_use_is_named(models_dir: Path, refusal: Refusal) -> None:
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        said = refusal(models_dir, admin_port=port)
    assert f"127.0.0.1:{port}: Address already in use" in said


def test_a_file_of_keys_without_keys_is_named(
    models_dir: Path, tmp_path: Path, refusal: Refusal
) -> None:
    said = refusal(models_dir, api_keys_file=tmp_path / "none")
    assert f"LIMBECK_API_KEYS_FILE='{tmp_path / 'none'}': cannot be read" in said


def test_what_the_system_refuses_is_named(refusal: Refusal) -> None:
    folder = Path("x" * 5000)
    assert f"cannot start: {folder}: File name too long" in refusal(folder)


def test_help_lists_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["--help"])
    assert ended.value.code == 0
    assert "LIMBECK_MODELS_DIR" in capsys.readouterr().out


def test_an_ipv6_address_is_bound() -> None:
    try:
        sock = bind("::1", 0)
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert sock.getsockname()[0] == "::1"
    sock.close()
