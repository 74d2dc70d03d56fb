"""The process over several workers: starts them, replaces those that fail, ends them in order.

All workers accept from the same listening socket. So a connection never goes to a worker that is
not ready, and what waits to be accepted is not lost with a worker that dies.
"""

import asyncio
import logging
import math
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from app.child import Child
from app.folders import find_bundles
from app.ledger import Ledger
from app.settings import Settings
from app.statuses import CUT_SHORT

logger = logging.getLogger(__name__)

# Starts that fail in a row, with nobody serving, before there is no more hope.
_FAILED_STARTS = 3
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.1, 30.0
# A worker that lived so long did not die of how it was started.
_SETTLED_S = 60.0
# Between the last moment at which a worker should have ended by itself, and its being killed.
_MARGIN_S = 3.0
_HURRIED_S = 2.0
# A sign of life comes every second, but on a busy machine not on the dot.
_LEAST_SILENCE_S = 10.0


class WorkersFailed(RuntimeError):
    """No worker can be started; the message says why."""


class Supervisor:
    """Keeps `settings.processes` workers serving.

    Args:
        settings: the operator's.
        sockets: bound; the first worker that is ready lets them listen.
        ledger: where the workers count.
    """

    def __init__(
        self, settings: Settings, sockets: Sequence[socket.socket], ledger: Ledger
    ) -> None:
        self._settings = settings
        self._sockets = sockets
        self._ledger = ledger
        self._children: set[Child] = set()
        self._taken: set[int] = set()
        self._served = False
        self._ending = asyncio.Event()
        self._hurried = asyncio.Event()
        self._retiring: set[asyncio.Task[None]] = set()
        self._cut_short = False
        # What comes into the folder later is for no worker, nor for one that replaces another.
        self._versions = None if settings.watch else _versions(settings.models_dir)

    async def run(self) -> int:
        """Serve until a signal; the exit status.

        Raises:
            WorkersFailed: no worker can be started.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, number)
        try:
            async with asyncio.TaskGroup() as places:
                for _ in range(self._settings.processes):
                    places.create_task(self._keep())
        except* WorkersFailed as failures:
            await self._end_all(signal.SIGKILL)
            raise failures.exceptions[0] from None
        await self._end_all(None)
        return CUT_SHORT if self._cut_short else 0

    def _end(self, number: int) -> None:
        """A signal has come: the first begins the end, another hurries it."""
        if self._ending.is_set():
            self._hurried.set()
        self._ending.set()
        # Only the workers decide now how long anybody is let in.
        for sock in self._sockets:
            sock.close()
        for child in self._children:
            # To one that is ending already, a signal means to hurry.
            if self._hurried.is_set() or not child.retiring:
                child.signal(number)

    async def _keep(self) -> None:
        """Keep one worker serving."""
        failed_starts = quick_ends = 0
        while not self._ending.is_set():
            started = time.monotonic()
            child = await self._start()
            silence_s = max(self._settings.hang_s, _LEAST_SILENCE_S)
            reason = await child.until_unfit(self._count_ready, silence_s)
            if self._ending.is_set():
                self._retire(child)
                return
            failed_starts = 0 if child.ready else failed_starts + 1
            quick_ends = 0 if time.monotonic() - started > _SETTLED_S else quick_ends + 1
            self._retire(child)
            self._despair(child, reason, failed_starts)
            delay_s = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2 ** max(0, quick_ends - 1))
            logger.error("%s is replaced in %.1f s: %s", child.name, delay_s, reason)
            await _wait(self._ending, delay_s)

    async def _start(self) -> Child:
        """A new worker at the lowest place that is free: others may still be retiring."""
        place = next(n for n in range(len(self._taken) + 1) if n not in self._taken)
        self._taken.add(place)
        try:
            self._ledger.open(place)
            child = await Child.start(place, self._sockets, self._ledger.folder, self._versions)
        except OSError as error:
            raise WorkersFailed(f"a worker cannot be started: {error}") from error
        self._children.add(child)
        if self._ending.is_set():
            child.signal(signal.SIGTERM)
        return child

    def _count_ready(self) -> None:
        self._served = True
        ready = sum(child.ready and not child.retiring for child in self._children)
        logger.info("%d of %d workers are ready", ready, self._settings.processes)

    def _despair(self, child: Child, reason: str, failed_starts: int) -> None:
        """Give up, if no worker serves and the next one would fail as well.

        Raises:
            WorkersFailed: that is so.
        """
        if child.ready or any(other.ready and not other.retiring for other in self._children):
            return
        if (child.reason and not self._served) or failed_starts >= _FAILED_STARTS:
            raise WorkersFailed(child.reason or f"a worker {reason} while it started")

    def _retire(self, child: Child) -> None:
        """Let a worker end that is to be replaced, or see to one that has ended."""
        child.retiring = True
        task = asyncio.create_task(self._see_out(child))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _see_out(self, child: Child) -> None:
        """End a worker in the time that it has for it, whatever it does; then tidy up after it."""
        if not self._ending.is_set():
            child.dismiss()
        waiting = asyncio.ensure_future(child.wait())
        hurried = asyncio.ensure_future(self._hurried.wait())
        await asyncio.wait(
            (waiting, hurried), timeout=self._patience_s(), return_when=asyncio.FIRST_COMPLETED
        )
        await asyncio.wait((waiting,), timeout=_HURRIED_S if self._hurried.is_set() else 0)
        hurried.cancel()
        if not child.ended:
            logger.error("%s did not end in time and is killed", child.name)
            child.signal(signal.SIGKILL)
        await waiting
        if self._ending.is_set() and not child.answered_everything:
            self._cut_short = True
        self._children.discard(child)
        self._ledger.forget_moments(child.place)
        self._taken.discard(child.place)

    def _patience_s(self) -> float:
        settings = self._settings
        return settings.shutdown_delay_s + math.ceil(settings.drain_seconds) + _MARGIN_S

    async def _end_all(self, number: int | None) -> None:
        """Wait until every worker has ended."""
        self._ending.set()
        for child in list(self._children):
            if number is not None:
                child.signal(number)
        while self._retiring:
            await asyncio.wait(self._retiring)
        for child in list(self._children):
            await child.wait()


def _versions(models_dir: Path) -> list[str]:
    return [f"{folder.parent.name}/{folder.name}" for folder in find_bundles(models_dir)]


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    """Return when the event has come, or the time."""
    waiting = asyncio.ensure_future(event.wait())
    await asyncio.wait((waiting,), timeout=timeout_s)
    waiting.cancel()
