"""Checkpoints: one file per stage, replaced atomically after every epoch."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch

from training.files import write_whole


class CheckpointError(ValueError):
    """A checkpoint that belongs to another run."""


def fingerprint(*parts: Any) -> str:
    """A digest of everything that a stage depends on, as JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Checkpoint:
    """The saved state of one stage, bound to what the stage depends on.

    Args:
        path: the file; its folder is made.
        identity: `fingerprint` of the stage; a file with another one is refused.
        validation: `fingerprint` of which images it does not learn from; likewise, if the file has
            one. Files from before this was kept have none.
    """

    def __init__(self, path: Path, identity: str, validation: str = "") -> None:
        """Bind the file; nothing is read or written yet."""
        self.path = path
        self.identity = identity
        self.validation = validation

    def load(self) -> dict[str, Any] | None:
        """The saved state, or None where there is none.

        Raises:
            CheckpointError: the file is damaged, or was written under other settings, data or seed.
        """
        if not self.path.exists():
            return None
        try:
            state, identity = _read(self.path)
        except MemoryError:
            raise
        except Exception as error:  # nobody lists what unpickling makes of damaged bytes
            raise CheckpointError(
                f"{self.path} cannot be read; remove it to train this stage anew"
            ) from error
        if identity != self.identity:
            raise CheckpointError(
                f"{self.path} was written by a run with other settings, data or seed; "
                "give another --work folder, or remove it"
            )
        if state.pop("validation", self.validation) != self.validation:
            raise CheckpointError(
                f"{self.path} was written when other images were for validation: files were renamed"
                " since, and what groups them is in their names; name them as before, or remove it"
            )
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Replace the file as a whole: a crash leaves the old one or the new one."""
        buffer = io.BytesIO()
        bound = {"identity": self.identity, "validation": self.validation}
        torch.save({**bound, **state}, buffer)
        write_whole(self.path, buffer.getvalue())


def _read(path: Path) -> tuple[dict[str, Any], str]:
    """The state of a file and its identity."""
    content = path.read_bytes()
    with ZipFile(io.BytesIO(content)) as archive:
        if archive.testzip() is not None:  # PyTorch itself takes flipped bits as they are
            raise BadZipFile("a checksum is wrong")
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state, state.pop("identity")
