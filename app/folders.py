"""Where bundles lie: `<models_dir>/<name>/<version>/`. Nothing here reads what is in them."""

import os
from contextlib import suppress
from pathlib import Path


def find_bundles(models_dir: Path) -> list[Path]:
    """The folders `<name>/<version>/`, by name and version.

    Names that begin with a dot belong to an export that is still being written.
    """
    found: list[Path] = []
    for bundle in sorted(models_dir.glob("*")):
        if not bundle.name.startswith("."):
            with suppress(PermissionError):  # there may be folders that are none of ours
                found += find_versions(bundle)
    return found


def find_versions(bundle: Path) -> list[Path]:
    """The folders of a bundle's versions, ascending; none if there is no such bundle.

    Raises:
        OSError: it is there, and cannot be read.
    """
    try:
        names = os.listdir(bundle)
    except (FileNotFoundError, NotADirectoryError):
        return []
    versions = sorted((name for name in names if is_version(name)), key=int)
    return [bundle / version for version in versions if (bundle / version).is_dir()]


def is_version(folder_name: str) -> bool:
    """Whether a folder of this name holds a version."""
    return folder_name.isascii() and folder_name.isdigit()
