"""The files of a data set, in a folder or in a tar archive; one that is not whole is refused."""

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

_LISTED_PROBLEMS = 10
_OPENERS: Mapping[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
    b"\x5d\x00\x00\x80": lzma.open,
}
_CUT = (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError)


class DataError(ValueError):
    """A data set that cannot be used; the message names the files."""


def read_files(source: Path, splits: Sequence[str]) -> dict[str, list[tuple[str, bytes]]]:
    """For each split, pairs of `<class>/<file>` and content.

    Raises:
        DataError: the source is unreadable or cut short, a split has no files, a folder of a class
            is empty or a link leads nowhere.
    """
    files: dict[str, list[tuple[str, bytes]]] = {split: [] for split in splits}
    classes: set[str] = set()
    if source.is_dir():
        raise_problems(_broken(source, splits), source, "are links to nowhere")
    try:
        for path, content in _members(source):
            parts = PurePosixPath(path).parts[-2 if content is None else -3 :]
            if not parts or parts[0] not in files or any(part.startswith(".") for part in parts):
                continue
            if content is None and len(parts) == 2:
                classes.add("/".join(parts))
            elif content is not None and len(parts) == 3:
                files[parts[0]].append((f"{parts[1]}/{parts[2]}", content))
    except _CUT as error:
        raise DataError(f"{source}: cannot be read: {error}") from error
    for split, found in files.items():
        classes.difference_update(f"{split}/{name.split('/')[0]}" for name, _ in found)
    raise_problems(sorted(classes), source, "are empty folders of classes")
    for split, found in files.items():
        if not found:
            raise DataError(f"{source}: no files {split}/<class>/*")
    return files


def raise_problems(problems: Sequence[str], source: Path, what: str = "cannot be read") -> None:
    """Name the bad files, if there are any."""
    if problems:
        more = len(problems) - _LISTED_PROBLEMS
        listed = ", ".join(problems[:_LISTED_PROBLEMS]) + (f" and {more} more" if more > 0 else "")
        raise DataError(f"{source}: {len(problems)} file(s) {what}: {listed}")


def _members(source: Path) -> Iterator[tuple[str, bytes | None]]:
    """Path and content of every regular file; of folders the path alone."""
    if source.is_dir():
        for path in source.glob("*/*"):
            if path.is_dir():
                yield path.relative_to(source).as_posix(), None
        for path in source.glob("*/*/*"):
            if path.is_file():
                yield path.relative_to(source).as_posix(), path.read_bytes()
        return
    with _uncompressed(source) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None or member.isdir():
                yield member.name, None if file is None else file.read()
        # A tar ends with two blocks of zeros, and tarfile stops at the first, or where there is
        # none. Whatever follows has to be read: only at its end is a compressed stream checked.
        assert archive.fileobj is not None
        if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise EOFError("the archive is cut short")
        while stream.read(1 << 20):
            pass


def _uncompressed(source: Path) -> IO[bytes]:
    """The archive's bytes, whatever they are compressed with."""
    with source.open("rb") as file:
        start = file.read(8)
    for magic, opener in _OPENERS.items():
        if start.startswith(magic):
            opened: IO[bytes] = opener(source)
            return opened
    return source.open("rb")


def _broken(source: Path, splits: Sequence[str]) -> list[str]:
    """Links to nowhere in a folder; in an archive links are refused."""
    return [
        path.relative_to(source).as_posix()
        for split in splits
        for pattern in (f"{split}/[!.]*", f"{split}/[!.]*/[!.]*")
        for path in sorted(source.glob(pattern))
        if not path.exists()
    ]
