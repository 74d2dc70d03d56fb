"""Results kept on disk as they are made, so that a killed evaluation continues where it was."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from training.files import write_whole

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
        return self._found(name) is not None

    def kept(self, name: str, compute: Callable[[], Mapping[str, npt.NDArray[Any]]]) -> Arrays:
        """The result of that name, computed only if it is not there yet."""
        found = self._found(name)
        if found is not None:
            return found
        arrays = dict(compute())
        if self.folder is not None:
            buffer = io.BytesIO()
            np.savez(buffer, allow_pickle=False, **arrays)
            write_whole(self.folder / f"{name}.npz", buffer.getvalue())
        return arrays

    def _found(self, name: str) -> Arrays | None:
        """The result of that name; None if it is not there, or its file is damaged."""
        if self.folder is None:
            return None
        try:
            content = (self.folder / f"{name}.npz").read_bytes()
        except FileNotFoundError:
            return None
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        except MemoryError:
            raise
        except Exception:  # nobody lists what zipfile and NumPy make of damaged bytes
            return None
