"""The connections of one process: how many there may be, and how long each may keep it waiting.

No request pays for this. Once a second every connection is asked how far its client lags behind,
and those that lag too far are closed. When all places are taken, a newcomer gets the place of
whoever lags most, so that slow clients never shut out quick ones, probes and scrapers among them.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

logger = logging.getLogger(__name__)

# A client that keeps this up is never too slow, however much it sends or fetches.
PACE_BYTES_PER_S = 64 * 1024

_SWEEP_S = 1.0
# Nobody loses a place for being this slow: a burst of newcomers must not throw each other out.
_PATIENCE_S = 1.0
# Looking for laggards costs a look at everyone, so several are found at once.
_EVICTED_SHARE = 64


class Stage(Enum):
    """What a connection waits for, as far as its client has a part in it."""

    IDLE = "the next request"
    HEAD = "the rest of a request's head"
    BODY = "the rest of a request's body"
    ANSWER = "our answer"
    UNSENT = "the client to take its answer"


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections there may be, and how many seconds each may take.

    Attributes:
        connections: at the same time.
        idle_s: between two requests.
        header_s: from the connection, or a request's first byte, to the end of its head.
        body_s: that a body may lie behind a pace of `PACE_BYTES_PER_S`; so long it may be silent.
        write_s: for an answer, and a second more for each `PACE_BYTES_PER_S` that it has.
    """

    connections: int = 1024
    idle_s: float = 5.0
    header_s: float = 10.0
    body_s: float = 30.0
    write_s: float = 30.0

    def of(self, stage: Stage) -> float | None:
        """The seconds of a stage; None for what is not the client's to hurry."""
        return {
            Stage.IDLE: self.idle_s,
            Stage.HEAD: self.header_s,
            Stage.BODY: self.body_s,
            Stage.ANSWER: None,
            Stage.UNSENT: self.write_s,
        }[stage]


Refuse = Callable[[int | None, bytes, bytes, list[tuple[bytes, bytes]]], bytes | None]


class Connection(Protocol):
    """What is asked of a connection."""

    def lag(self, now: float) -> tuple[Stage, float]:
        """What it waits for, and how many seconds its client is behind the pace."""

    def expire(self, stage: Stage) -> None:
        """End it: the client took too long."""


class Connections:
    """The open connections, and the rules they are under.

    Args:
        limits: sizes and times.
        on_refused: called with the code of each answer that the app does not know of.
        on_count: called with the number of connections whenever it changes.
        refuse: looks at port, method, URL and headers of a request; gives the whole answer to one
            that is not to reach the app. None: all of them do.

    Attributes:
        draining: whether every answer is to be the last of its connection.
    """

    def __init__(
        self,
        limits: ConnectionLimits | None = None,
        on_refused: Callable[[str], None] = lambda code: None,
        on_count: Callable[[int], None] = lambda count: None,
        refuse: Refuse | None = None,
    ) -> None:
        self.limits = limits or ConnectionLimits()
        self.on_refused = on_refused
        self.refuse = refuse
        self._on_count = on_count
        self.draining = False
        self._open: set[Connection] = set()
        self._expired = self._turned_away = 0
        self._sweep_planned = False
        self._search_again_at = 0.0

    def admit(self, newcomer: Connection) -> bool:
        """Give a new connection a place; whether there is one."""
        loop = asyncio.get_running_loop()
        self._plan_sweep(loop)
        if len(self._open) >= self.limits.connections and not self._evict(loop.time()):
            self._turned_away += 1
            return False
        self._open.add(newcomer)
        self._on_count(len(self._open))
        return True

    def remove(self, connection: Connection) -> None:
        """It is closed."""
        self._open.discard(connection)
        self._on_count(len(self._open))

    def _plan_sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._sweep_planned:
            self._sweep_planned = True
            loop.call_later(_SWEEP_S, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close those who are too late; goes on as long as anybody is there."""
        self._sweep_planned = False
        now = loop.time()
        for connection in list(self._open):
            stage, lag_s = connection.lag(now)
            limit_s = self.limits.of(stage)
            if limit_s is not None and lag_s > limit_s:
                if stage is not Stage.IDLE:
                    self._expired += 1
                connection.expire(stage)
        if self._expired or self._turned_away:
            # One line a second: how many there are is the clients' choice.
            logger.warning(
                "connections were closed: %d of clients that are too slow, %d for want of room",
                self._expired,
                self._turned_away,
            )
            self._expired = self._turned_away = 0
        if self._open:
            self._plan_sweep(loop)

    def _evict(self, now: float) -> bool:
        """Close those who lag most, to make room; whether anybody was closed."""
        if now < self._search_again_at:
            return False
        lags = [(connection.lag(now), connection) for connection in self._open]
        slow = [
            (lag_s, stage, connection)
            for (stage, lag_s), connection in lags
            if stage is not Stage.ANSWER and lag_s > _PATIENCE_S
        ]
        slow.sort(key=lambda entry: entry[0], reverse=True)
        for _, stage, connection in slow[: 1 + len(self._open) // _EVICTED_SHARE]:
            self.remove(connection)  # its end may take a turn of the loop; its place is free now
            self._expired += stage is not Stage.IDLE
            connection.expire(stage)
        if not slow:
            self._search_again_at = now + _PATIENCE_S / 10
        return bool(slow)
