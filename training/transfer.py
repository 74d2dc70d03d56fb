"""Files fetched over HTTP: resumed where they were cut, kept only if they are the right ones."""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

Report = Callable[[str], None]

_TIMEOUT_S = 30
_BLOCK_BYTES = 1 << 16
# Connections in a row that may end without a single new byte.
_FRUITLESS = 3
_SECONDS_BETWEEN_LINES = 2.0


class DownloadError(ValueError):
    """A file that could not be fetched; the message says why and what to do."""


class Unreachable(DownloadError):
    """The server does not answer or does not have the file: another mirror may."""


@dataclass(frozen=True)
class Original:
    """A public file, known to the byte."""

    name: str
    sha256: str
    size_bytes: int


class _Cut(Exception):
    """The connection ended early."""


def transfer(original: Original, base_url: str, folder: Path, report: Report) -> Path:
    """Fetch one file into the folder, from where an earlier attempt stopped.

    Until the digest is right the file is called `<name>.partial`.

    Raises:
        Unreachable: no connection, or the server has no such file.
        DownloadError: the disk is full, or the server's file is another one.
    """
    url = f"{base_url.rstrip('/')}/{original.name}"
    if urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError(f"a mirror starts with http:// or https://, got {base_url!r}")
    target = folder / original.name
    if target.exists() and _sha256(target) == original.sha256:
        report(f"{original.name}: already here")
        return target
    partial = folder / f"{original.name}.partial"
    folder.mkdir(parents=True, exist_ok=True)
    _receive_all(url, original, partial, report)
    found = _sha256(partial)
    if found != original.sha256:
        partial.unlink()
        raise DownloadError(
            f"{url} is not the file expected: SHA-256 {found}, expected {original.sha256}; "
            "what was fetched is removed"
        )
    partial.replace(target)
    report(f"{original.name}: {original.size_bytes:,} bytes, SHA-256 as expected")
    return target


def progress_line(name: str, done: int, total: int, gained: int, seconds: float) -> str:
    """How far a file is, and how long the rest takes at the speed of this connection.

    Args:
        name: of the file.
        done: bytes that are here.
        total: bytes of the whole file.
        gained: bytes of them that came in the last `seconds`.
        seconds: since the connection was made.
    """
    left_s = round((total - done) * seconds / gained) if gained else 0
    shown = f"{left_s // 60}:{left_s % 60:02d} left" if gained else "waiting"
    return f"{name}: {done:,} of {total:,} bytes ({done / total:.0%}), {shown}"


def _receive_all(url: str, original: Original, partial: Path, report: Report) -> None:
    """Connect as often as it takes, as long as every few connections bring something."""
    fruitless = 0
    while True:
        offset = partial.stat().st_size if partial.exists() else 0
        if offset > original.size_bytes:
            partial.unlink()
            continue
        if offset == original.size_bytes:
            return
        try:
            _receive(url, original, partial, offset, report)
            reason = "the connection ended early"
        except _Cut as cut:
            reason = str(cut)
        reached = partial.stat().st_size if partial.exists() else 0
        fruitless = 0 if reached > offset else fruitless + 1
        if fruitless == _FRUITLESS:
            raise Unreachable(
                f"{url}: {reason}, {reached:,} of {original.size_bytes:,} bytes are here; "
                "the same command goes on from there"
            )


def _receive(url: str, original: Original, partial: Path, offset: int, report: Report) -> None:
    """Append what one connection brings.

    Raises:
        _Cut: it ended before the file did.
    """
    with _connect(url, offset) as response:
        start, total = _extent(response, url)
        if total is not None and total != original.size_bytes:
            partial.unlink(missing_ok=True)
            raise DownloadError(
                f"{url} is not the file expected: it has {total:,} bytes, "
                f"expected {original.size_bytes:,}"
            )
        if start not in (0, offset):
            raise DownloadError(f"{url}: asked for byte {offset}, the server sends from {start}")
        report(f"{original.name}: from {url}" + (f", from byte {start:,} on" if start else ""))
        try:
            with partial.open("ab" if start else "wb") as file:
                done, began = start, time.monotonic()
                shown = began
                # One byte too many tells a longer file apart without reading all of it.
                for block in _blocks(response, original.size_bytes + 1 - start):
                    file.write(block)
                    done += len(block)
                    if time.monotonic() - shown >= _SECONDS_BETWEEN_LINES:
                        shown = time.monotonic()
                        size, gained = original.size_bytes, done - start
                        report(progress_line(original.name, done, size, gained, shown - began))
        except OSError as error:
            raise DownloadError(
                f"{partial}: cannot be written: {error.strerror or error}; "
                f"{original.size_bytes:,} bytes are needed"
            ) from error
    if done > original.size_bytes:
        partial.unlink()
        raise DownloadError(
            f"{url} is not the file expected: it is longer than {original.size_bytes:,} bytes"
        )


def _connect(url: str, offset: int) -> HTTPResponse:
    """The server's answer, for the bytes from the offset on."""
    headers = {"User-Agent": "limbeck-train"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=_TIMEOUT_S)
    except HTTPError as error:
        error.close()
        raise Unreachable(f"{url}: the server answers {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise Unreachable(f"{url}: cannot be reached: {reason}; is there a network?") from error
    return response


def _extent(response: HTTPResponse, url: str) -> tuple[int, int | None]:
    """First byte that the answer brings, and the size of the whole file where it is told."""
    if response.status == 206:
        found = re.fullmatch(
            r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip()
        )
        if not found:
            raise DownloadError(f"{url}: the server answers part of the file without saying which")
        return int(found[1]), None if found[2] == "*" else int(found[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _blocks(response: HTTPResponse, limit: int) -> Iterator[bytes]:
    """The body in blocks, up to the limit."""
    while limit > 0:
        try:
            block = response.read(min(_BLOCK_BYTES, limit))
        except (OSError, HTTPException) as error:
            raise _Cut(f"the connection broke ({error})") from error
        if not block:
            return
        limit -= len(block)
        yield block


def _sha256(path: Path) -> str:
    """The digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
