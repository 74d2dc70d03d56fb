"""Where bundles lie: `<models_dir>/<name>/<version>/`. Nothing here reads what is in them."""

from pathlib import Path


def find_bundles(models_dir: Path) -> list[Path]:
    """The folders `<name>/<version>/`, by name and version.

    Names that begin with a dot belong to an export that is still being written.
    """
    bundles = sorted(path for path in models_dir.glob("*") if not path.name.startswith("."))
    return [folder for bundle in bundles for folder in find_versions(bundle)]


def find_versions(bundle: Path) -> list[Path]:
    """The folders of a bundle's versions, ascending; none if there is no such bundle."""
    return sorted(
        (folder for folder in bundle.glob("*") if folder.is_dir() and is_version(folder.name)),
        key=lambda folder: int(folder.name),
    )


def is_version(folder_name: str) -> bool:
    """Whether a folder of this name holds a version."""
    return folder_name.isascii() and folder_name.isdigit()
