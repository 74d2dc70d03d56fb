from pathlib import Path

import pytest

from app.bundle import MANIFEST_FILE
from training.targets import check_version, check_writable, versions_in


def test_a_folder_to_be_made_can_be_written_to_and_is_not_made_yet(tmp_path: Path) -> None:
    check_writable(tmp_path / "models" / "mnist", None, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_must_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    for folder in (tmp_path / "models", tmp_path / "models" / "mnist"):
        with pytest.raises(ValueError, match=f"{folder} cannot be written to: Not a directory"):
            check_writable(folder)


def test_a_folder_without_a_bundle_is_no_version_and_takes_none(tmp_path: Path) -> None:
    for name in ("1", "2", "03", "new"):
        (tmp_path / name).mkdir()
    (tmp_path / "1" / MANIFEST_FILE).write_text("{}")
    assert versions_in(tmp_path) == [1]
    check_version(tmp_path, 4, begun=False)
    check_version(tmp_path, 1, begun=True)  # what the run wrote before, perhaps
    for version, begun in ((1, False), (2, False), (2, True)):
        with pytest.raises(ValueError, match=f"{version} exists already; give another --version"):
            check_version(tmp_path, version, begun=begun)
