"""One inference thread per device, which empties the queues of all its models.

A batch is whatever waits when the thread is free: nobody waits for company on an idle machine, and
under load the batches grow by themselves.
"""

import asyncio
import threading
import time
from typing import Protocol


class Batch(Protocol):
    """Requests taken from a queue together."""

    def compute(self) -> None:
        """Work out every outcome; never raises. Runs on the inference thread."""

    def deliver(self) -> None:
        """Hand the outcomes to those who wait. Runs on the event loop."""


class Queue(Protocol):
    """A queue that a dispatcher empties; called with the dispatcher's lock held."""

    def waits_since(self) -> float | None:
        """When the first item was queued, `time.monotonic()`; None if none waits."""

    def due(self) -> float:
        """When the waiting items should be computed, `time.monotonic()`."""

    def take(self) -> Batch:
        """Remove and return the next batch."""


class Dispatcher:
    """The inference thread of one device.

    Attributes:
        changed: guards all its queues.
        closed: whether anything more is accepted.
    """

    def __init__(self, name: str = "inference") -> None:
        self.changed = threading.Condition()
        self.closed = False
        self._computing = False
        self._waking = False
        self._queues: list[Queue] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        # A daemon: an inference that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    @property
    def busy(self) -> bool:
        """Whether the thread computes, or something waits for it."""
        with self.changed:
            waits = any(queue.waits_since() is not None for queue in self._queues)
            return self._computing or waits

    def add(self, queue: Queue) -> None:
        """Serve this queue too."""
        with self.changed:
            self._queues.append(queue)

    def remove(self, queue: Queue) -> None:
        """Serve this queue no more; the caller has seen to it that nothing waits in it."""
        with self.changed:
            self._queues.remove(queue)

    def wake_soon(self) -> None:
        """Let the thread look at its queues when the event loop has worked off what is ready.

        Requests that arrive together are queued in one turn of the loop. Waking the thread at the
        first of them would make it take that one alone, and fight the loop for the interpreter.
        """
        if self._loop is not None and not self._waking:
            self._waking = True
            self._loop.call_soon(self._wake)

    def _wake(self) -> None:
        self._waking = False
        with self.changed:
            self.changed.notify()

    def start(self) -> None:
        """Start computing; outcomes are delivered on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def close(self, timeout_s: float) -> bool:
        """Accept nothing more, compute what waits, stop; whether that ended in time."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join, timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        """The thread: take, compute, deliver, until closed and empty."""
        assert self._loop is not None
        while (batch := self._take()) is not None:
            batch.compute()
            try:
                self._loop.call_soon_threadsafe(batch.deliver)
            except RuntimeError:
                return  # the loop was closed: nobody waits any more
            del batch  # it would keep its model alive until the next one comes

    def _take(self) -> Batch | None:
        """The next batch, from the queue whose first item waits longest; None at the end."""
        with self.changed:
            self._computing = False
            while True:
                _, queue = min(
                    ((s, q) for q in self._queues if (s := q.waits_since()) is not None),
                    key=lambda pair: pair[0],
                    default=(0.0, None),
                )
                if queue is None:
                    if self.closed:
                        return None
                    self.changed.wait()
                    continue
                patience = queue.due() - time.monotonic()
                if patience <= 0 or self.closed:
                    self._computing = True
                    return queue.take()
                self.changed.wait(patience)
