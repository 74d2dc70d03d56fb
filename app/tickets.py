"""Items that wait for a computation, and how a batch of them is computed."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from app.errors import DeadlineExceeded, InferenceFailed, ServiceError
from app.stop import Stop

logger = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

Run = Callable[[Sequence[ItemT], Stop], Sequence[ResultT | ServiceError]]


@dataclass(frozen=True, slots=True)
class Answer(Generic[ResultT]):
    """A result, and what it went through."""

    result: ResultT
    queue_s: float


@dataclass(slots=True, eq=False)
class Ticket(Generic[ItemT, ResultT]):
    """One item in the queue; its future belongs to the event loop's thread.

    Attributes:
        outcome: what the inference thread found; None until it is done with the item.
        answered: whether the dispatcher is done with it. Its future may be done earlier: whoever
            waits for it can be cancelled, or fail it for a reason of their own.
    """

    item: ItemT
    deadline: float
    queued_at: float
    future: asyncio.Future[Answer[ResultT]]
    outcome: Answer[ResultT] | ServiceError | None = None
    answered: bool = False


class TicketBatch(Generic[ItemT, ResultT]):
    """Requests taken from a queue together.

    Args:
        tickets: the items.
        run: computes some of them; gives a result for each, or an error in its place.
        on_delivered: called on the event loop with the batch and how many items it computed.

    Attributes:
        stop: ends the computation, whose results are then worth nothing.
    """

    def __init__(
        self,
        tickets: Sequence[Ticket[ItemT, ResultT]],
        run: Run[ItemT, ResultT],
        on_delivered: "Callable[[TicketBatch[ItemT, ResultT], int], None]",
    ) -> None:
        self.stop = Stop()
        self._tickets = tickets
        self._run = run
        self._on_delivered = on_delivered
        self._computed = 0
        self._started = 0.0

    def __len__(self) -> int:
        return len(self._tickets)

    @property
    def abandoned(self) -> bool:
        """On the event loop: whether nobody waits for any of its items."""
        return all(ticket.future.done() for ticket in self._tickets)

    def compute(self) -> None:
        """Work out every outcome; what expired or was abandoned costs nothing."""
        self._started = time.monotonic()
        wanted = self._wanted(self._tickets)
        self._computed = len(wanted)
        if wanted and not self._attempt(wanted):
            self._retry(wanted)

    def _wanted(self, tickets: Sequence[Ticket[ItemT, ResultT]]) -> list[Ticket[ItemT, ResultT]]:
        """Those that somebody still waits for; the others get their outcome here."""
        now = time.monotonic()
        wanted = []
        for ticket in tickets:
            if ticket.deadline > now and not ticket.future.done():
                wanted.append(ticket)
            else:
                ticket.outcome = DeadlineExceeded("The request expired in the queue.")
        return wanted

    def _attempt(self, tickets: Sequence[Ticket[ItemT, ResultT]]) -> bool:
        """Compute these together; whether that succeeded."""
        try:
            results = self._run([ticket.item for ticket in tickets], self.stop)
            outcomes = list(zip(tickets, results, strict=True))
        except Exception:
            if not self.stop.requested and len(tickets) == self._computed:
                # The retries would tell the same story again.
                logger.exception("a batch of %d failed", len(tickets))
            return False
        for ticket, result in outcomes:
            if isinstance(result, ServiceError):
                ticket.outcome = result
            else:
                ticket.outcome = Answer(result, self._started - ticket.queued_at)
        return True

    def _retry(self, tickets: Sequence[Ticket[ItemT, ResultT]]) -> None:
        """After a failure: each half on its own, down to the items that are to blame.

        One bad item of N costs 2 log2(N) runs, of less than twice the batch's size together. Where
        everything fails, the runs add up to log2(N) + 1 batches; deadlines bound their time. A
        batch that was too large for the device's memory succeeds in parts.
        """
        if len(tickets) == 1:
            tickets[0].outcome = InferenceFailed("The model failed on this image.")
            return
        middle = len(tickets) // 2
        for half in (tickets[:middle], tickets[middle:]):
            wanted = self._wanted(half)
            if wanted and not self._attempt(wanted):
                self._retry(wanted)

    def deliver(self) -> None:
        """On the event loop: hand each waiting request its outcome."""
        self._on_delivered(self, self._computed)
        for ticket in self._tickets:
            ticket.answered = True
            if ticket.future.done():
                continue
            if isinstance(ticket.outcome, Answer):
                ticket.future.set_result(ticket.outcome)
            else:
                assert ticket.outcome is not None
                ticket.future.set_exception(ticket.outcome)
