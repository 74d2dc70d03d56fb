"""The pause between two batches, where the inference thread shares its core with the event loop.

There, nothing is gained by computing while requests come in, and the two throw each other's data
out of the caches: all that a request costs the event loop costs it a third more. So a batch begins
when those who have just been answered have asked again, or when it is clear that they do not.
"""

import asyncio
from collections.abc import Callable

# How long nobody comes before nobody is expected; the loop's timers tick in milliseconds.
_QUIET_S = 0.002
_LONGEST_S = 0.02


class Pause:
    """Used on the event loop, but for `begin`.

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
        self._watching = False
        self.lasts = False

    def begin(self) -> None:
        """On the inference thread: a batch is computed, and about to be delivered."""
        self.lasts = self._wanted

    def expect(self, clients: int, loop: asyncio.AbstractEventLoop) -> None:
        """So many were answered, and may have more to ask at once."""
        if self._wanted:
            self._expected = clients
            self._ends_at = loop.time() + _LONGEST_S

    def arrived(self, requests: int) -> None:
        """So many were queued."""
        self._expected -= requests

    def end_if_done(self, loop: asyncio.AbstractEventLoop) -> None:
        """End it, at once or when nobody is expected any more."""
        if self._expected <= 0:
            self._end()
        elif not self._watching:
            self._watching = True
            self._watch(loop)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(_QUIET_S, self._look, loop, self._expected)

    def _look(self, loop: asyncio.AbstractEventLoop, expected: int) -> None:
        """End it, unless some have come since and others may follow."""
        if 0 < self._expected < expected and loop.time() < self._ends_at:
            self._watch(loop)
        else:
            self._watching = False
            self._end()

    def _end(self) -> None:
        self._expected = 0
        self.lasts = False
        self._on_end()
