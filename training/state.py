"""Results kept on disk as they are made, so that a killed evaluation continues where it was."""

import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

Arrays = dict[str, npt.NDArray[Any]]


def digest_of(*parts: nn.Module | Tensor | str | float | tuple[str, ...]) -> str:
    """A short digest of everything a result depends on: networks, images, settings."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, nn.Module):
            digest.update(repr(part).encode())
            for name, value in sorted(part.state_dict().items()):
                digest.update(f"{name}{tuple(value.shape)}".encode())
                digest.update(value.detach().cpu().numpy().tobytes())
        elif isinstance(part, Tensor):
            digest.update(f"{tuple(part.shape)}{part.dtype}".encode())
            digest.update(part.detach().cpu().numpy().tobytes())
        else:
            digest.update(json.dumps(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:20]


class State:
    """A folder of named results; without a folder nothing is kept.

    Args:
        folder: where the results lie; made when the first one is written.
    """

    def __init__(self, folder: Path | None) -> None:
        """Build the state; see the class."""
        self.folder = folder

    def below(self, name: str) -> "State":
        """The state of one part of the work."""
        return State(None if self.folder is None else self.folder / name)

    def has(self, name: str) -> bool:
        """Whether the result is already there."""
        return self.folder is not None and (self.folder / f"{name}.npz").exists()

    def kept(self, name: str, compute: Callable[[], Mapping[str, npt.NDArray[Any]]]) -> Arrays:
        """The result of that name, computed only if it is not there yet."""
        if self.folder is None:
            return dict(compute())
        path = self.folder / f"{name}.npz"
        if path.exists():
            with np.load(path, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        arrays = dict(compute())
        self.folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        # Renamed into place, so that a kill in the middle leaves no half file behind.
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_bytes(buffer.getvalue())
        partial.replace(path)
        return arrays
