"""What runs of the program leave behind: their output, and whole bundles."""

import subprocess
from pathlib import Path

from app.bundle import Manifest, read_manifest, read_verified


def lines_of(process: subprocess.Popen[str], timeout_s: float | None = None) -> list[str]:
    """What a process printed that ends well."""
    output, errors = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, errors
    return output.splitlines()


def whole_manifest(bundle: Path) -> Manifest:
    """The manifest of a bundle of which every file is as it was written."""
    manifest = read_manifest(bundle)
    for file in manifest.files:
        read_verified(bundle, manifest, file)
    return manifest
