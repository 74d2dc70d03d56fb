from pathlib import Path

import pytest

from tests.training.full_disk import full_disk
from training.files import write_whole


def test_a_file_is_written_with_its_folder_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.bin"
    for content in (b"old", b"new"):
        write_whole(path, content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_and_is_told_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    write_whole(path, b"old")
    with full_disk(), pytest.raises(OSError, match=str(path)):
        write_whole(path, bytes(100_000))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=f"{tmp_path}/file"):
        write_whole(tmp_path / "file" / "new", b"")
