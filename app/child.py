"""One worker process, as its supervisor sees it."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from app.ledger import VARIABLE
from app.line import Word, read_message


class Child:
    """A worker process.

    Attributes:
        place: its number among the workers.
        ready: whether it has ever served.
        retiring: whether it is being replaced, or has ended.
        reason: why it said that it failed; empty if it did not say.
    """

    def __init__(
        self,
        place: int,
        process: asyncio.subprocess.Process,
        line: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.place = place
        self.ready = self.retiring = False
        self.reason = ""
        self._process = process
        self._line, self._our_end = line

    @classmethod
    async def start(
        cls,
        place: int,
        sockets: Sequence[socket.socket],
        metrics: Path,
        versions: Sequence[str] | None,
    ) -> Self:
        """A new process.

        Args:
            place: its number among the workers.
            sockets: what it is to listen on.
            metrics: the folder of the workers' metrics.
            versions: `name/version` of what it is to serve; None: whatever there is.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            passed = [theirs.fileno(), *(sock.fileno() for sock in sockets)]
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "app.worker",
                str(place),
                json.dumps(versions),
                *map(str, passed),
                pass_fds=passed,
                # Before the metrics library is first imported there.
                env={**os.environ, VARIABLE: str(metrics)},
                # Of its own, so that a Ctrl-C in a terminal reaches it once and through us.
                start_new_session=True,
            )
        return cls(place, process, await asyncio.open_unix_connection(sock=ours))

    @property
    def name(self) -> str:
        """For the log."""
        return f"worker {self.place} (process {self._process.pid})"

    async def until_unfit(self, on_ready: Callable[[], None], silence_s: float) -> str:
        """Return why it should be replaced, when that is so.

        Args:
            on_ready: called when it serves.
            silence_s: without a sign of life for so long it hangs; not while it starts.
        """
        while True:
            try:
                async with asyncio.timeout(silence_s if self.ready else None):
                    message = await read_message(self._line)
            except TimeoutError:
                return f"gave no sign of life for {silence_s:g} s"
            if message is None:
                return self._end(await self._process.wait())
            if message.word is Word.READY:
                self.ready = True
                on_ready()
            elif message.word is Word.FAILED:
                self.reason = message.reason
            elif message.word is Word.UNWELL:
                return message.reason

    def _end(self, status: int) -> str:
        if self.reason:
            return self.reason
        if status < 0:
            return f"was ended by {signal.Signals(-status).name}"
        return f"ended with status {status}"

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.returncode is not None

    @property
    def answered_everything(self) -> bool:
        """Whether it ended as it should; one that never served had nothing to answer."""
        return self._process.returncode == 0 or not self.ready

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if not self.ended:
            self._process.send_signal(number)

    def dismiss(self) -> None:
        """Let it end in order while the others go on; a SIGTERM ends the service as a whole."""
        self._our_end.close()

    async def wait(self) -> None:
        """Return when it has ended; it listens for our end of the line until then."""
        await self._process.wait()
        self._our_end.close()
