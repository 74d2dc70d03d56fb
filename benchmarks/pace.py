"""Load at a fixed rate, whatever the server makes of it: users do not wait for each other."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import httptools

_TICK_S = 0.002


@dataclass(slots=True)
class Offered:
    """What came of requests that were sent at a fixed rate.

    Attributes:
        seconds: from the first request that counts to the last.
        latencies_s: status -> seconds of each answer to a request that was sent after `settle_s`.
        slowest_first_s: of the answers to the requests before.
        lost: requests without an answer, from the beginning.
        held_back: requests that were not sent, from the beginning, because all connections were
            taken.
        counts_from: `time.perf_counter()` before which requests only warm the server up.
    """

    seconds: float = 0.0
    latencies_s: dict[int, list[float]] = field(default_factory=dict)
    slowest_first_s: float = 0.0
    lost: int = 0
    held_back: int = 0
    counts_from: float = 0.0

    def note(self, status: int, sent_at: float, seconds: float) -> None:
        """Count an answer."""
        if sent_at >= self.counts_from:
            self.latencies_s.setdefault(status, []).append(seconds)
        else:
            self.slowest_first_s = max(self.slowest_first_s, seconds)


class _Client(asyncio.Protocol):
    """One connection with at most one request under way."""

    def __init__(self, offered: Offered, idle: "list[_Client]") -> None:
        self._offered = offered
        self._idle = idle
        self._parser = httptools.HttpResponseParser(self)
        self._sent_at = 0.0
        self.waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes) -> None:
        self.waiting = True
        self._sent_at = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self.waiting = False
        seconds = time.perf_counter() - self._sent_at
        self._offered.note(self._parser.get_status_code(), self._sent_at, seconds)
        if self._parser.should_keep_alive():
            self._idle.append(self)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.waiting:
            self.waiting = False
            self._offered.lost += 1
        if self in self._idle:
            self._idle.remove(self)


async def offer(
    port: int,
    requests: Sequence[bytes],
    *,
    rate: float,
    seconds: float,
    settle_s: float = 1.0,
    connections: int = 1000,
    drain_s: float = 60.0,
) -> Offered:
    """Send requests in turn, `rate` of them a second.

    Args:
        port: of 127.0.0.1.
        requests: whole HTTP requests.
        rate: a second.
        seconds: how long.
        settle_s: how long before, while the connections are made.
        connections: at most; when all are taken, requests are held back and counted.
        drain_s: how long to wait afterwards for answers; then they are lost.
    """
    loop = asyncio.get_running_loop()
    offered, idle, all_clients = Offered(), list[_Client](), list[_Client]()
    turn = itertools.cycle(requests)
    started = time.perf_counter()
    offered.counts_from = started + settle_s
    due = 0
    while (elapsed := time.perf_counter() - started) < settle_s + seconds:
        for _ in range(int(elapsed * rate) - due):
            due += 1
            if not idle and len(all_clients) < connections:
                _, client = await loop.create_connection(
                    lambda: _Client(offered, idle), "127.0.0.1", port
                )
                all_clients.append(client)
                idle.append(client)
            if idle:
                idle.pop().send(next(turn))
            else:
                offered.held_back += 1
        await asyncio.sleep(_TICK_S)
    offered.seconds = time.perf_counter() - offered.counts_from
    end = time.perf_counter() + drain_s
    while any(client.waiting for client in all_clients) and time.perf_counter() < end:
        await asyncio.sleep(_TICK_S)
    for client in all_clients:
        client.transport.abort()
    while any(client.waiting for client in all_clients):
        await asyncio.sleep(0)
    return offered
