"""The folder in which several workers keep what each must know of all: metrics and connections.

Each place among the workers has its files. Whoever takes the place of a worker that died goes on
with its counters and histograms; its gauges, which told of a moment, are forgotten.
"""

import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from prometheus_client.multiprocess import mark_process_dead

from app.acceptor import Shares

SHARES_FILE = "connections"
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

# Room for the files of one worker, taken when it starts: they are mapped into memory, and a mapped
# page that a full disk has no room for ends the process.
_RESERVED_BYTES = {
    "counter": 64 * 1024,
    "histogram": 256 * 1024,
    "gauge_livesum": 64 * 1024,
    "gauge_livemax": 64 * 1024,
}


class Ledger:
    """A private temporary folder; a context manager that removes it.

    Raises:
        OSError: there is no room, or nowhere to write to.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="limbeck-workers-"))
        self.shares = Shares(self.folder / SHARES_FILE)

    def open(self, place: int) -> None:
        """Make room for the worker that is about to start at this place.

        Raises:
            OSError: the disk is full.
        """
        self.forget_moments(place)
        for kind, size in _RESERVED_BYTES.items():
            with (self.folder / f"{kind}_{place}.db").open("ab") as file:
                _reserve(file.fileno(), size)

    def forget_moments(self, place: int) -> None:
        """Drop the gauges of a worker that has ended."""
        self.shares.forget(place)
        mark_process_dead(place, str(self.folder))  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _reserve(file: int, size: int) -> None:
    """Give a file that has fewer bytes this many, backed by the disk."""
    if os.fstat(file).st_size >= size:
        return
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.truncate(file, size)
