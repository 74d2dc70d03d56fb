"""Logs: one JSON object a line on standard output. Images and their bytes are never logged."""

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import TextIO

import orjson

access = logging.getLogger("app.access")

Fields = dict[str, object]


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; `extra={"fields": {...}}` adds members.

    A record with `entries`, seconds since 1970 and fields, is as many lines as it has of them.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The lines, without the end of the last; no content can break one in two."""
        entries = getattr(record, "entries", None)
        if entries is None:
            entries = [(record.created, getattr(record, "fields", {}))]
        level, message = record.levelname.lower(), record.getMessage()
        lines = []
        for created, fields in entries:
            line: Fields = {
                "time": _iso(created),
                "level": level,
                "logger": record.name,
                "message": message,
                **fields,
            }
            if record.exc_info:
                line["exception"] = self.formatException(record.exc_info)
            lines.append(orjson.dumps(line, default=str))
        return b"\n".join(lines).decode()


class AccessLog:
    """One line for each request, told to the logger together with those that end at the same time.

    To format and write a record costs several times what its content does, and answers come by the
    batch. Used on the event loop alone.
    """

    def __init__(self) -> None:
        self._entries: list[tuple[float, Fields]] = []

    @property
    def enabled(self) -> bool:
        """Whether anybody reads it."""
        return access.isEnabledFor(logging.INFO)

    def add(self, fields: Fields) -> None:
        """Write a line, when the loop has worked off what is ready."""
        if not self._entries:
            asyncio.get_running_loop().call_soon(self._write)
        self._entries.append((time.time(), fields))

    def _write(self) -> None:
        entries, self._entries = self._entries, []
        access.info("request", extra={"entries": entries})


def _iso(seconds: float) -> str:
    whole = int(seconds)
    return f"{_iso_second(whole)}.{int((seconds - whole) * 1000):03d}+00:00"


@lru_cache(1)
def _iso_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class SteadyHandler(logging.Handler):
    """Writes to a stream that may be closed, or on a full disk: what cannot be written is counted.

    The library's own handler would print a traceback for each such line.

    Attributes:
        lost: how many lines there were.
        on_lost: called with each of them, on any thread.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self.lost = 0
        self.on_lost: Callable[[], None] = lambda: None

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, at once."""
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # a closed stream is a ValueError
            for _ in line.split("\n"):
                self.lost += 1
                self.on_lost()


def secure_standard_streams() -> None:
    """Open what was closed when the process started: a socket must not get the log's number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115  # for good
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def abandon_unwritten() -> None:
    """Let the process end well though its last lines could not be written."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            # The interpreter will try once more, and would end with a status of its own.
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())


def configure_logs(level: str) -> SteadyHandler:
    """Send every logger of the process, the server's own too, through the formatter."""
    # Every request leaves a line, and none says which source line wrote it or on which thread: the
    # library's documented way not to look for them.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = SteadyHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # The parser warns of every malformed form; the request's own line tells that as well.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    return handler
