"""The load generator: keep-alive connections that always have one request under way.

Closed loop, on raw asyncio transports with httptools for the answers, so that one core is enough to
keep any server on another core busy. What it used of its core is part of every measurement.
"""

import asyncio
import gc
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast

import httptools
import uvloop

from benchmarks.measurement import Measurement

_RECONNECT_AFTER_S = 0.05


@dataclass(frozen=True, slots=True)
class Stream:
    """Clients that send the same requests.

    Attributes:
        requests: whole HTTP requests, sent in turn.
        connections: how many clients.
    """

    requests: Sequence[bytes]
    connections: int


@dataclass(frozen=True, slots=True)
class Window:
    """How long a measurement is.

    Attributes:
        seconds: at most, after every client has had its first answer.
        answers: at most, of the first stream.
        settle_s: how long to wait for the first answers; then the server is measured as it is.
        drain_s: how long to wait afterwards for requests under way; then they are errors.
    """

    seconds: float = 5.0
    answers: int = 50_000
    settle_s: float = 10.0
    drain_s: float = 20.0


@dataclass(slots=True)
class _Tally:
    """What the clients of one stream have seen since the window began."""

    stream: Stream
    requests: Iterator[bytes]
    full: asyncio.Event
    answers_wanted: int
    settled: int = 0
    latencies_s: list[float] = field(default_factory=list)
    errors: int = 0

    def answered(self, status: int, seconds: float) -> None:
        if status != 200:
            self.errors += 1
            return
        self.latencies_s.append(seconds)
        if len(self.latencies_s) >= self.answers_wanted:
            self.full.set()

    def begin(self) -> None:
        self.latencies_s = []
        self.errors = 0


class _Connection(asyncio.Protocol):
    """One client's connection; `closed` is done when it ends."""

    def __init__(self, tally: _Tally, load: "_Load") -> None:
        self._tally = tally
        self._load = load
        self._parser = httptools.HttpResponseParser(self)
        self._sent_at = 0.0
        self._waiting = False
        self._first = True
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._send()

    def _send(self) -> None:
        self._waiting = True
        self._sent_at = time.perf_counter()
        self.transport.write(next(self._tally.requests))

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._waiting = False
        self._tally.answered(self._parser.get_status_code(), time.perf_counter() - self._sent_at)
        if self._first:
            self._first = False
            self._load.settle(self._tally)
        if self._load.stopping or not self._parser.should_keep_alive():
            self.transport.close()
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting:
            self._tally.errors += 1
        if not self.closed.done():
            self.closed.set_result(None)


class _Load:
    """All clients of one measurement."""

    def __init__(self, port: int, streams: Sequence[Stream], answers_wanted: int) -> None:
        self._port = port
        self.full = asyncio.Event()
        self.settled = asyncio.Event()
        self.stopping = False
        self.tallies = [
            _Tally(
                stream,
                itertools.cycle(stream.requests),
                self.full,
                answers_wanted if stream is streams[0] else sys.maxsize,
            )
            for stream in streams
        ]
        self._open: set[_Connection] = set()

    def settle(self, tally: _Tally) -> None:
        """One more client has had its first answer."""
        tally.settled += 1
        if all(t.settled >= t.stream.connections for t in self.tallies):
            self.settled.set()

    async def client(self, tally: _Tally) -> None:
        """Keep one connection busy until the load stops; a new one when it breaks."""
        loop = asyncio.get_running_loop()
        while not self.stopping:
            try:
                _, connection = await loop.create_connection(
                    lambda: _Connection(tally, self), "127.0.0.1", self._port
                )
            except OSError:
                tally.errors += 1
                await asyncio.sleep(_RECONNECT_AFTER_S)
                continue
            self._open.add(connection)
            await connection.closed
            self._open.discard(connection)

    def abort(self) -> None:
        """Give up on requests that are still not answered; each counts as an error."""
        for connection in self._open:
            connection.transport.abort()


async def measure(port: int, streams: Sequence[Stream], window: Window) -> list[Measurement]:
    """One measurement for each stream, all sent at the same time.

    The window begins when every client has had an answer, so that neither connecting nor the first
    batch is part of it. Afterwards every request still under way is answered or given up, so that
    the server is idle again.
    """
    load = _Load(port, streams, window.answers)
    clients = [
        asyncio.create_task(load.client(tally))
        for tally in load.tallies
        for _ in range(tally.stream.connections)
    ]
    await _within(load.settled, window.settle_s)
    for tally in load.tallies:
        tally.begin()
    load.full.clear()
    cpu, started = time.process_time(), time.perf_counter()
    await _within(load.full, window.seconds)
    seconds = time.perf_counter() - started
    share = (time.process_time() - cpu) / seconds
    counted = [(tuple(sorted(tally.latencies_s)), tally.errors) for tally in load.tallies]
    load.stopping = True
    for tally in load.tallies:
        tally.begin()
    _, late = await asyncio.wait(clients, timeout=window.drain_s)
    load.abort()
    await asyncio.gather(*late)
    return [
        # What was given up belongs to the window, in which it was sent or waited for.
        Measurement(seconds, latencies, errors + tally.errors, share)
        for (latencies, errors), tally in zip(counted, load.tallies, strict=True)
    ]


async def _within(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def run_load(port: int, streams: Sequence[Stream], window: Window) -> list[Measurement]:
    """`measure` on an event loop of its own, undisturbed by the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(measure(port, streams, window))
    finally:
        gc.enable()
