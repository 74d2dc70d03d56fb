"""The bounded queue of one model.

Places are reserved before an image is decoded, so that overload is refused before it costs work,
and what was reserved but has not arrived tells the dispatcher whether waiting a moment would pay.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

from app.batching import Dispatcher
from app.errors import DeadlineExceeded, InferenceFailed, NotReady, QueueFull, ServiceError

logger = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

Run = Callable[[Sequence[ItemT]], Sequence[ResultT | ServiceError]]


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


@dataclass(frozen=True, slots=True)
class Answer(Generic[ResultT]):
    """A result, and what it went through."""

    result: ResultT
    queue_s: float


@dataclass(slots=True, eq=False)
class Ticket(Generic[ItemT, ResultT]):
    """One item in the queue; its future belongs to the event loop's thread.

    Attributes:
        answered: whether the dispatcher is done with it. Its future may be done earlier: whoever
            waits for it can be cancelled, or fail it for a reason of their own.
    """

    item: ItemT
    deadline: float
    queued_at: float
    future: asyncio.Future[Answer[ResultT]]
    answered: bool = False


class Lane(Generic[ItemT, ResultT]):
    """The queue of one model, emptied by a dispatcher.

    Args:
        dispatcher: the thread that computes; `dispatcher.add` is the caller's to call.
        run: computes a batch; gives a result for each item, or an error in its place.
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
        self._computing = 0
        self._idle: asyncio.Event | None = None

    def reserve(self, places: int) -> "Reservation[ItemT, ResultT]":
        """Hold places for items that are being made.

        Raises:
            QueueFull: there are not so many.
            NotReady: the dispatcher was closed.
        """
        with self._changed:
            if self._dispatcher.closed:
                raise NotReady("The service is shutting down.")
            if len(self._waiting) + self._arriving + places > self._limits.queue_size:
                raise QueueFull(
                    f"No room for {places} more in a queue of {self._limits.queue_size} images.",
                    headers={"Retry-After": "1"},
                )
            self._arriving += places
        return Reservation(self, places)

    def enqueue(self, tickets: Sequence[Ticket[ItemT, ResultT]]) -> None:
        """Turn reserved places into waiting items."""
        with self._changed:
            self._arriving -= len(tickets)
            self._waiting.extend(tickets)
            self._on_depth(len(tickets))
        self._dispatcher.wake_soon()

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

    def take(self) -> "LaneBatch[ItemT, ResultT]":
        """Remove and return the next batch."""
        size = min(len(self._waiting), self._limits.batch_size)
        tickets = [self._waiting.popleft() for _ in range(size)]
        self._computing += size
        self._on_depth(-size)
        return LaneBatch(self, self._run, tickets)

    def computed(self, taken: int, batch_size: int) -> None:
        """On the event loop: a batch has its outcomes.

        Args:
            taken: items that were taken from the queue.
            batch_size: those of them that were computed.
        """
        if batch_size:
            self._on_batch(batch_size)
        with self._changed:
            self._computing -= taken
            self._tell_if_idle()

    async def drain(self) -> None:
        """Wait until nothing is reserved, waits or is computed."""
        with self._changed:
            self._idle = asyncio.Event()
            self._tell_if_idle()
        await self._idle.wait()

    def _tell_if_idle(self) -> None:
        if self._idle is not None and not (self._arriving or self._waiting or self._computing):
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


class LaneBatch(Generic[ItemT, ResultT]):
    """Requests taken from a lane together."""

    def __init__(
        self,
        lane: Lane[ItemT, ResultT],
        run: Run[ItemT, ResultT],
        tickets: list[Ticket[ItemT, ResultT]],
    ) -> None:
        self._lane = lane
        self._run = run
        self._tickets = tickets
        self._computed = 0
        self._outcomes: list[Answer[ResultT] | ServiceError] = []

    def compute(self) -> None:
        """Work out every outcome; what expired or was abandoned costs nothing."""
        started = time.monotonic()
        wanted = [t for t in self._tickets if t.deadline > started and not t.future.done()]
        self._computed = len(wanted)
        results = iter(self._results([ticket.item for ticket in wanted]))
        computed = {id(ticket) for ticket in wanted}
        for ticket in self._tickets:
            if id(ticket) not in computed:
                self._outcomes.append(DeadlineExceeded("The request expired in the queue."))
                continue
            result = next(results)
            if isinstance(result, ServiceError):
                self._outcomes.append(result)
            else:
                self._outcomes.append(Answer(result, started - ticket.queued_at))

    def _results(self, items: Sequence[ItemT]) -> Sequence[ResultT | ServiceError]:
        """Results of a batch; if it fails as a whole, each item gets a second try on its own."""
        if not items:
            return []
        try:
            return self._run(items)
        except Exception:
            logger.exception("a batch of %d failed", len(items))
        if len(items) == 1:
            return [InferenceFailed("The model failed on this image.")]
        return [self._results([item])[0] for item in items]

    def deliver(self) -> None:
        """On the event loop: hand each waiting request its outcome."""
        self._lane.computed(len(self._tickets), self._computed)
        for ticket, outcome in zip(self._tickets, self._outcomes, strict=True):
            ticket.answered = True
            if ticket.future.done():
                continue
            if isinstance(outcome, ServiceError):
                ticket.future.set_exception(outcome)
            else:
                ticket.future.set_result(outcome)
