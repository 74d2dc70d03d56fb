"""One inference thread per device, which empties the queues of all its models.

A batch is whatever waits when the thread is free: nobody waits for company on an idle machine, and
under load the batches grow by themselves. `app/pause.py` tells of the exception.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

from app.pause import Pause

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

# A moment without memory may fail one of them.
_FAILED_PROBES = 3


class Batch(Protocol):
    """Requests taken from a queue together."""

    def __len__(self) -> int:
        """How many there are."""

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

    Args:
        name: of the thread.
        pauses: whether it lets the event loop work undisturbed between two batches.

    Attributes:
        changed: guards all its queues.
        closed: whether anything more is accepted.
        computing_since: when the batch that is being computed was begun, `time.monotonic()`; None
            between two batches.
        failed: why nothing can be computed any more; None while all is well.
    """

    def __init__(self, name: str = "inference", *, pauses: bool = False) -> None:
        self.changed = threading.Condition()
        self.closed = False
        self.computing_since: float | None = None
        self.failed: str | None = None
        self._waking = False
        self._pause = Pause(self._notify, wanted=pauses)
        self._queues: list[Queue] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        # A daemon: an inference that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    @property
    def busy(self) -> bool:
        """Whether the thread computes, or something waits for it."""
        with self.changed:
            return self.computing_since is not None or self._waits

    @property
    def _waits(self) -> bool:
        return any(queue.waits_since() is not None for queue in self._queues)

    def add(self, queue: Queue) -> None:
        """Serve this queue too."""
        with self.changed:
            self._queues.append(queue)

    def remove(self, queue: Queue) -> None:
        """Serve this queue no more; the caller has seen to it that nothing waits in it."""
        with self.changed:
            self._queues.remove(queue)

    def wake_soon(self, arrived: int = 0) -> None:
        """Let the thread look at its queues when the event loop has worked off what is ready.

        Requests that arrive together are queued in one turn of the loop. Waking the thread at the
        first of them would make it take that one alone, and fight the loop for the interpreter.

        Args:
            arrived: how many items were queued.
        """
        self._pause.arrived(arrived)
        if self._loop is not None and not self._waking:
            self._waking = True
            self._loop.call_soon(self._wake, self._loop)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        self._waking = False
        with self.changed:
            waits = self.closed or self._waits
        if waits:
            self._pause.end_if_done(loop)

    def _notify(self) -> None:
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
        try:
            while (batch := self._take()) is not None:
                batch.compute()
                self.computing_since = None  # first: whoever has an answer finds the thread idle
                if not self._deliver(batch):
                    return
                del batch  # it would keep its model alive until the next one comes
        except BaseException:
            # Whoever waits gets no answer but at its deadline; only a new process helps.
            self.failed = "the inference thread died"
            logger.exception("the inference thread died")
        finally:
            self.computing_since = None

    def _deliver(self, batch: Batch) -> bool:
        """Hand over the outcomes; whether the event loop still takes them."""
        assert self._loop is not None
        self._pause.begin()
        try:
            self._loop.call_soon_threadsafe(self._hand_over, batch, self._loop)
        except RuntimeError:
            return False  # the loop was closed: nobody waits any more
        return True

    def _hand_over(self, batch: Batch, loop: asyncio.AbstractEventLoop) -> None:
        """On the event loop: deliver a batch."""
        try:
            batch.deliver()
        finally:
            self._pause.expect(len(batch), loop)
            self.wake_soon()

    def illness(self, hang_s: float) -> str | None:
        """Why this process will not compute any more; None while all is well.

        Args:
            hang_s: a batch that takes longer hangs.
        """
        since = self.computing_since
        if since is not None and time.monotonic() - since > hang_s:
            return f"an inference has been running for more than {hang_s:g} s"
        return self.failed

    def watched(
        self, run: Callable[P, R], probe: Callable[[], object], what: str
    ) -> Callable[P, R]:
        """`run`, but failures are followed by a `probe` that cannot be the sender's fault.

        If that fails too, several times in a row, the device is lost and not the image broken. A
        batch that succeeds takes the verdict back.

        Args:
            run: computes a batch.
            probe: computes something known to work.
            what: names the model in the verdict.
        """
        failures = 0

        def watched_run(*args: P.args, **kwargs: P.kwargs) -> R:
            nonlocal failures
            try:
                results = run(*args, **kwargs)
            except Exception:
                failures = failures + 1 if _fails(probe) else 0
                if failures == _FAILED_PROBES:
                    self.failed = f"{what} fails on a black image as well"
                raise
            if failures:
                failures, self.failed = 0, None
            return results

        return watched_run

    def _take(self) -> Batch | None:
        """The next batch, of those that are due the one that waits longest; None at the end."""
        with self.changed:
            while True:
                now = time.monotonic()
                _, _, queue = min(
                    (
                        (max(0.0, q.due() - now), since, q)
                        for q in self._queues
                        if (since := q.waits_since()) is not None
                    ),
                    key=lambda entry: entry[:2],
                    default=(0.0, 0.0, None),
                )
                if self.closed and queue is None:
                    return None
                if queue is None or (self._pause.lasts and not self.closed):
                    self.changed.wait()
                    continue
                patience = queue.due() - now
                if patience <= 0 or self.closed:
                    self.computing_since = time.monotonic()
                    return queue.take()
                self.changed.wait(patience)


def _fails(probe: Callable[[], object]) -> bool:
    try:
        probe()
    except Exception:
        return True
    return False
