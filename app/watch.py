"""The folder of bundles, looked at from time to time for what has changed in it."""

import errno
import logging
import os
from contextlib import suppress
from pathlib import Path

from app.folders import is_version

logger = logging.getLogger(__name__)

# Of every file of every version: where it is, and when it was written how long.
Signature = frozenset[tuple[str, str, int, int, int]]


class FolderWatch:
    """Tells which bundles have changed since they were last told of.

    It looks at sizes, times and inodes, not at contents: a look at some dozens of bundles takes
    about a millisecond, so it may be taken every second. What was there when the watch began is
    known.

    Args:
        models_dir: the folder of bundles.
    """

    def __init__(self, models_dir: Path) -> None:
        self._models_dir = models_dir
        self._known: dict[str, Signature] = {}
        self._unreadable: set[str] = set()
        with suppress(OSError):  # whoever loads the bundles says that the folder cannot be read
            self._known = self._signatures()
        self._last = self._known

    def look(self) -> set[str]:
        """Names of bundles that are new, changed or gone, and were the same at the look before.

        A bundle that is still being copied changes from look to look, and one that is replaced may
        be missing for a moment: neither is told before it has settled. A folder without any bundle
        is a volume that is not mounted rather than an order to unload everything.

        Raises:
            OSError: the folder cannot be read.
        """
        seen = self._signatures()
        if not seen:
            return set()
        changed = {
            name
            for name in seen.keys() | self._known.keys()
            if seen.get(name) != self._known.get(name) and seen.get(name) == self._last.get(name)
        }
        self._last = seen
        self._known = {
            name: signature
            for name in seen.keys() | self._known.keys()
            if (signature := (seen if name in changed else self._known).get(name)) is not None
        }
        return changed

    def _signatures(self) -> dict[str, Signature]:
        """Bundle -> signature; what vanishes while one looks is left out.

        One that cannot be read stays as it is known: there may be folders that are none of ours.
        """
        found = {}
        for name in _folders(self._models_dir):
            try:
                signature = _signature(self._models_dir / name)
                self._unreadable.discard(name)
            except FileNotFoundError:
                continue
            except OSError as error:
                if name not in self._unreadable:
                    logger.warning("%s cannot be read: %s", self._models_dir / name, error.strerror)
                self._unreadable.add(name)
                signature = self._known.get(name, frozenset())
            if signature:
                found[name] = signature
        return found


def _signature(bundle: Path) -> Signature:
    files = set()
    for version in _folders(bundle):
        if not is_version(version):
            continue
        with suppress(FileNotFoundError), os.scandir(bundle / version) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    stat = entry.stat()
                    files.add((version, entry.name, stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return frozenset(files)


def _folders(path: Path) -> list[str]:
    """Names of the folders in a folder, without those that are still being written."""
    with os.scandir(path) as entries:
        return [e.name for e in entries if not e.name.startswith(".") and _may_be_a_folder(e)]


def _may_be_a_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is one, or nobody can tell: looking into it says why."""
    try:
        return entry.is_dir()
    except OSError as error:
        return error.errno != errno.ELOOP  # a link that leads to itself
