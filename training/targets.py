"""Where a command will write, tried before the hours of work whose result belongs there."""

import tempfile
from pathlib import Path

from app.bundle import MANIFEST_FILE
from app.folders import find_versions


def check_writable(*folders: Path | None) -> None:
    """Raise unless each folder can be made and written to; those that are None do not count.

    Raises:
        ValueError: one cannot.
    """
    for folder in folders:
        if folder is None:
            continue
        try:
            there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            raise ValueError(f"{folder} cannot be written to: {error.strerror}") from error


def check_new(*paths: Path) -> None:
    """Raise unless each file or folder can be made, and nothing gives way to it.

    Raises:
        ValueError: one is there already, or cannot be made.
    """
    for path in paths:
        if path.exists():
            raise ValueError(f"{path} is there already; it was left as it is")
        check_writable(path.parent)


def versions_in(folder: Path) -> list[int]:
    """The versions of a bundle that a folder holds."""
    return [int(path.name) for path in find_versions(folder) if (path / MANIFEST_FILE).exists()]


def check_version(folder: Path, version: int, *, begun: bool) -> None:
    """Raise unless a bundle's folder can take the version.

    Args:
        folder: of all its versions.
        version: asked for.
        begun: whether the run went on before: then the version may be what it wrote.

    Raises:
        ValueError: there is another one already.
    """
    target = folder / str(version)
    if target.exists() and not (begun and version in versions_in(folder)):
        raise ValueError(f"{target} exists already; give another --version, or none for the next")
