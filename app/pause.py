"""The pause between two batches, where the inference thread shares its core with the event loop.

There, nothing is gained by computing while requests come in, and the two throw each other's data
out of the caches: all that a request costs the event loop costs it a third more. So a batch begins
when those who have just been answered have asked again, or when it is clear that they do not.

A full batch waits as well: with 64 connections and batches of 32 that was worth 2 to 9 %.
"""

import asyncio
import time
from collections.abc import Callable

# What the processor may idle in a pause.
_IDLE_S = 0.001
# A turn of the loop that takes less than this had nothing to do.
_IDLE_TURN_S = 0.00005
# Whatever it does, those who wait must not wait for longer.
_LONGEST_S = 0.02


class Pause:
    """Used on the event loop, but for `begin` and `lasts`.

    Args:
        wanted: whether there are any.
        on_end: called when one has ended, and whenever one would have.

    Attributes:
        lasts: whether the next batch has to wait.
    """

    def __init__(self, on_end: Callable[[], None], *, wanted: bool) -> None:
        self._on_end = on_end
        self._wanted = wanted
        self._expected = 0
        self._ends_at = 0.0
        self._idle_s = 0.0
        self._watching = False
        self._delivered = True
        self.lasts = False

    def begin(self) -> None:
        """On the inference thread: a batch is computed, and about to be delivered."""
        self._delivered = not self._wanted
        self.lasts = self._wanted

    def expect(self, clients: int, loop: asyncio.AbstractEventLoop) -> None:
        """So many were answered, and may have more to ask at once."""
        if self._wanted:
            self._delivered = True
            self._expected = clients
            self._ends_at = loop.time() + _LONGEST_S

    def arrived(self, requests: int) -> None:
        """So many were queued."""
        self._expected -= requests

    def end_if_done(self, loop: asyncio.AbstractEventLoop) -> None:
        """While something waits: end it, at once or when the others have come or do not come."""
        if not self._delivered:
            return  # how many to expect is not known yet; delivering ends with this call again
        if self._is_over(loop):
            self._end()
        elif not self._watching:
            self._watching = True
            self._idle_s = 0.0
            loop.call_soon(self._turn, loop, time.perf_counter())

    def _turn(self, loop: asyncio.AbstractEventLoop, since: float) -> None:
        """Once a turn of the loop, which does not wait for its sockets meanwhile.

        Its timers would not do: they tick in milliseconds, and do not know what it was busy with.
        """
        now = time.perf_counter()
        if now - since < _IDLE_TURN_S:
            self._idle_s += now - since
        if self._idle_s > _IDLE_S or self._is_over(loop):
            self._watching = False
            self._end()
        else:
            loop.call_soon(self._turn, loop, now)

    def _is_over(self, loop: asyncio.AbstractEventLoop) -> bool:
        return self._expected <= 0 or loop.time() > self._ends_at

    def _end(self) -> None:
        self._expected = 0
        self.lasts = False
        self._on_end()
