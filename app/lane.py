"""The bounded queue of one model.

Places are reserved before an image is decoded, so that overload is refused before it costs work,
and what was reserved but has not arrived tells the dispatcher whether waiting a moment would pay.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self

from app.batching import Dispatcher
from app.budget import RETRY_AFTER
from app.errors import NotReady, QueueFull
from app.tickets import Answer, ItemT, ResultT, Run, Ticket, TicketBatch


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a lane holds and how much it computes at once.

    Attributes:
        batch_size: items of one batch.
        queue_size: items that wait or are about to.
        delay_s: how long the first item waits for others that are about to come.
    """

    batch_size: int = 32
    queue_size: int = 256
    delay_s: float = 0.0


class Lane(Generic[ItemT, ResultT]):
    """The queue of one model, emptied by a dispatcher.

    Args:
        dispatcher: the thread that computes; `dispatcher.add` is the caller's to call.
        run: computes a batch; gives a result for each item, or an error in its place. It should
            end early when it is asked to stop, for nobody waits for it then.
        limits: sizes and times.
        on_batch: called on the event loop with the size of each computed batch.
        on_depth: called on any thread with the change in the number of waiting items. A change, not
            the number, because the lanes of a bundle's versions are counted together.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        run: Run[ItemT, ResultT],
        limits: Limits,
        *,
        on_batch: Callable[[int], None] = lambda size: None,
        on_depth: Callable[[int], None] = lambda change: None,
    ) -> None:
        self._dispatcher = dispatcher
        self._changed = dispatcher.changed
        self._run = run
        self._limits = limits
        self._on_batch = on_batch
        self._on_depth = on_depth
        self._waiting: deque[Ticket[ItemT, ResultT]] = deque()
        self._arriving = 0
        self._taken = 0
        self._computing: TicketBatch[ItemT, ResultT] | None = None
        self._idle: asyncio.Event | None = None

    def check(self, places: int) -> None:
        """Refuse what there is no place for at the moment; holds none.

        Raises:
            QueueFull: there are not so many places.
            NotReady: the dispatcher was closed.
        """
        with self._changed:
            self._check(places)

    def _check(self, places: int) -> None:
        """As `check`, the lock being held."""
        if self._dispatcher.closed:
            raise NotReady("The service is shutting down.")
        if len(self._waiting) + self._arriving + places > self._limits.queue_size:
            raise QueueFull(
                f"No room for {places} more in a queue of {self._limits.queue_size} images.",
                headers=RETRY_AFTER,
            )

    def reserve(self, places: int) -> "Reservation[ItemT, ResultT]":
        """Hold places for items that are being made.

        Raises:
            QueueFull: there are not so many.
            NotReady: the dispatcher was closed.
        """
        with self._changed:
            self._check(places)
            self._arriving += places
        return Reservation(self, places)

    def enqueue(self, tickets: Sequence[Ticket[ItemT, ResultT]]) -> None:
        """Turn reserved places into waiting items."""
        with self._changed:
            self._arriving -= len(tickets)
            self._waiting.extend(tickets)
            self._on_depth(len(tickets))
        self._dispatcher.wake_soon(len(tickets))

    def withdraw(self, places: int, tickets: Sequence[Ticket[ItemT, ResultT]]) -> None:
        """Free places that were not used, and items that nobody waits for any more."""
        orphans = [ticket for ticket in tickets if not ticket.answered]
        for ticket in orphans:
            ticket.future.cancel()
        if not places and not orphans:
            return
        with self._changed:
            self._arriving -= places
            before = len(self._waiting)
            self._waiting = deque(t for t in self._waiting if not t.future.done())
            self._on_depth(len(self._waiting) - before)
            self._tell_if_idle()
            computing = self._computing
        if computing is not None and computing.abandoned:
            computing.stop.request()  # the thread has better things to do, if there are any
        self._dispatcher.wake_soon()  # the thread may be waiting for these

    def waits_since(self) -> float | None:
        """When the first item was queued; None if none waits."""
        return self._waiting[0].queued_at if self._waiting else None

    def due(self) -> float:
        """At once, unless others are about to come and there is room for them."""
        since = self._waiting[0].queued_at
        if self._arriving and len(self._waiting) < self._limits.batch_size:
            return since + self._limits.delay_s
        return since

    def take(self) -> TicketBatch[ItemT, ResultT]:
        """Remove and return the next batch."""
        size = min(len(self._waiting), self._limits.batch_size)
        tickets = [self._waiting.popleft() for _ in range(size)]
        self._taken += size
        self._on_depth(-size)
        self._computing = TicketBatch(tickets, self._run, self._delivered)
        return self._computing

    def _delivered(self, batch: TicketBatch[ItemT, ResultT], computed: int) -> None:
        """On the event loop: a batch has its outcomes; so many of its items were computed."""
        if computed:
            self._on_batch(computed)
        with self._changed:
            if self._computing is batch:  # by now the thread may have taken the next one
                self._computing = None
            self._taken -= len(batch)
            self._tell_if_idle()

    async def drain(self) -> None:
        """Wait until nothing is reserved, waits or is computed."""
        with self._changed:
            self._idle = asyncio.Event()
            self._tell_if_idle()
        await self._idle.wait()

    def _tell_if_idle(self) -> None:
        if self._idle is not None and not (self._arriving or self._waiting or self._taken):
            self._idle.set()


class Reservation(Generic[ItemT, ResultT]):
    """Places in a lane; a context manager that frees what was not used or is not awaited."""

    def __init__(self, lane: Lane[ItemT, ResultT], places: int) -> None:
        self._lane = lane
        self._places = places
        self._tickets: list[Ticket[ItemT, ResultT]] = []

    def submit(
        self, items: Sequence[ItemT], deadline: float
    ) -> list[asyncio.Future[Answer[ResultT]]]:
        """Queue the items, as many as places were reserved; one future each.

        Args:
            items: what to compute.
            deadline: `time.monotonic()` after which an item must not cost compute any more.
        """
        assert len(items) == self._places
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        self._tickets = [Ticket(item, deadline, now, loop.create_future()) for item in items]
        self._places = 0
        self._lane.enqueue(self._tickets)
        return [ticket.future for ticket in self._tickets]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for ticket in self._tickets:
            if ticket.future.done() and not ticket.future.cancelled():
                ticket.future.exception()  # of several failures only one is reported: that is known
        self._lane.withdraw(self._places, self._tickets)
