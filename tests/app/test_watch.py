import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from app.watch import FolderWatch
from tests.bundles import make_bundle, publish_bundle, rewrite_manifest


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    make_bundle(tmp_path, "first")
    make_bundle(tmp_path, "second")
    return tmp_path


def test_what_was_there_at_the_beginning_is_known(models_dir: Path) -> None:
    watch = FolderWatch(models_dir)
    assert [watch.look() for _ in range(3)] == [set(), set(), set()]


def test_a_change_is_told_once_and_only_when_it_has_settled(models_dir: Path) -> None:
    watch = FolderWatch(models_dir)
    publish_bundle(models_dir, "first", 2)
    assert [watch.look() for _ in range(3)] == [set(), {"first"}, set()]
    rewrite_manifest(models_dir / "second" / "1", created="later")
    assert [watch.look() for _ in range(3)] == [set(), {"second"}, set()]
    shutil.rmtree(models_dir / "second")
    assert [watch.look() for _ in range(3)] == [set(), {"second"}, set()]


def test_a_bundle_that_is_still_being_copied_is_waited_for(models_dir: Path) -> None:
    watch = FolderWatch(models_dir)
    folder = models_dir / "first" / "2"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}").touch()
        assert watch.look() == set()
    assert watch.look() == {"first"}
    # It goes on after all: it is told again.
    (folder / "bundle.json").touch()
    assert [watch.look(), watch.look()] == [set(), {"first"}]


def test_a_bundle_that_is_missing_for_a_moment_is_not_missed(models_dir: Path) -> None:
    watch = FolderWatch(models_dir)
    retired = (models_dir / "first" / "1").rename(models_dir / "first" / ".retired")
    assert watch.look() == set()
    retired.rename(models_dir / "first" / "1")
    assert [watch.look(), watch.look()] == [set(), set()]


def test_a_replaced_file_of_the_same_size_and_time_is_seen(models_dir: Path) -> None:
    watch = FolderWatch(models_dir)
    shutil.copytree(models_dir / "first" / "1", models_dir / ".copy")
    shutil.rmtree(models_dir / "first" / "1")
    (models_dir / ".copy").rename(models_dir / "first" / "1")
    assert [watch.look(), watch.look()] == [set(), {"first"}]


def test_what_is_no_bundle_is_not_looked_at(models_dir: Path) -> None:
    watch = FolderWatch(models_dir)
    (models_dir / "README.md").touch()
    for name in (".staging/1", "first/.2-partial", "first/latest"):
        (models_dir / name).mkdir(parents=True)
        (models_dir / name / "bundle.json").touch()
    assert [watch.look(), watch.look()] == [set(), set()]


def test_a_volume_that_is_gone_unloads_nothing(models_dir: Path) -> None:
    watch = FolderWatch(models_dir)
    away = models_dir.rename(models_dir.with_name("away"))
    with pytest.raises(OSError):
        watch.look()
    models_dir.mkdir()  # the mount point, with nothing mounted
    assert [watch.look() for _ in range(3)] == [set(), set(), set()]
    models_dir.rmdir()
    away.rename(models_dir)
    assert [watch.look(), watch.look()] == [set(), set()]


def test_what_cannot_be_read_keeps_nothing_else_from_being_told(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (models_dir / "loop").symlink_to("loop")
    scandir = os.scandir

    def forbidden(path: Path) -> Any:
        if Path(path).name in {"first", "lost+found"}:
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    watch = FolderWatch(models_dir)
    (models_dir / "lost+found").mkdir()
    publish_bundle(models_dir, "second", 2)
    monkeypatch.setattr(os, "scandir", forbidden)
    assert [watch.look() for _ in range(3)] == [set(), {"second"}, set()]
    told = sorted(record.getMessage() for record in caplog.records)
    assert [message.partition(":")[0] for message in told] == [
        f"{models_dir / name} cannot be read" for name in ("first", "lost+found")
    ]
    monkeypatch.undo()
    assert [watch.look(), watch.look()] == [set(), set()]
