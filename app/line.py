"""The line between the supervisor and one of its workers: a socket pair.

The worker says how it is, one JSON object a line. The supervisor says nothing: when it closes the
line, or is gone, the worker ends.
"""

import asyncio
import contextlib
import json
import socket
from dataclasses import dataclass
from enum import StrEnum


class Word(StrEnum):
    """What a worker says."""

    READY = "ready"
    BEAT = "beat"
    FAILED = "failed"
    UNWELL = "unwell"


@dataclass(frozen=True, slots=True)
class Message:
    """One word of a worker's, and why it says it."""

    word: Word
    reason: str = ""


class WorkerEnd:
    """The worker's end of the line.

    Args:
        sock: connected to the supervisor; becomes its own.

    Attributes:
        closed: whether the supervisor has closed the line.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.closed = False

    def say(self, word: Word, reason: str = "") -> None:
        """Tell the supervisor; one that is gone, or does not listen, is no failure."""
        line = json.dumps({"word": word, "reason": reason[:2000]}).encode() + b"\n"
        with contextlib.suppress(OSError):
            self._socket.send(line, socket.MSG_DONTWAIT)

    def wait_for_end(self) -> None:
        """Return when the supervisor has closed the line, or is gone."""
        with contextlib.suppress(OSError):
            while self._socket.recv(1024):
                pass
        self.closed = True


async def read_message(line: asyncio.StreamReader) -> Message | None:
    """What a worker says next; None when it has ended."""
    try:
        said = await line.readline()
    except OSError:
        return None
    if not said.endswith(b"\n"):
        return None
    document = json.loads(said)
    return Message(Word(document["word"]), document["reason"])
