"""What ends a request from outside while it is worked on: its deadline, or its client."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from app.errors import ClientGone, DeadlineExceeded, ServiceError

Gone = Callable[[], Awaitable[object]]

# Listening for a hang-up costs a task, a twentieth of a small request. Most are answered sooner
# than this, and the others keep a place for it at most so long after their client has gone.
_LISTEN_AFTER_S = 0.1


class Patience:
    """A context in which whatever the request waits for is cancelled once nobody wants it.

    Built as `asyncio.timeout` is: the task is cancelled, and the cancellation becomes the error
    that was the reason. So a wait of any kind ends, for a thread as well as for an inference.

    Args:
        deadline: `time.monotonic()` after which the answer is of no use.
        gone: returns when the client has hung up.

    Raises:
        DeadlineExceeded: on entering or later, the deadline has passed.
        ClientGone: the client hung up.
    """

    def __init__(self, deadline: float, gone: Gone) -> None:
        self._deadline = deadline
        self._gone = gone
        self._reason: ServiceError | None = None
        self._listener: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        patience_s = self._deadline - time.monotonic()
        if patience_s <= 0:
            raise DeadlineExceeded("The request expired before it was worked on.")
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        # One timer, not two: most requests are answered before either would ring.
        if patience_s <= _LISTEN_AFTER_S:
            self._timer = task.get_loop().call_later(patience_s, self._expire)
        else:
            self._timer = task.get_loop().call_later(_LISTEN_AFTER_S, self._listen)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._listener is not None:
            self._listener.cancel()
        if self._reason is None or self._task.uncancel() > self._cancelling:
            return  # others cancelled it, or nobody did
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            raise self._reason from None

    def _expire(self) -> None:
        self._end(DeadlineExceeded("The answer was not ready in time."))

    def _listen(self) -> None:
        loop = self._task.get_loop()
        self._timer = loop.call_later(max(0.0, self._deadline - time.monotonic()), self._expire)
        self._listener = loop.create_task(self._hear())

    async def _hear(self) -> None:
        await self._gone()
        self._end(ClientGone())

    def _end(self, reason: ServiceError) -> None:
        if self._reason is None:
            self._reason = reason
            self._task.cancel()
