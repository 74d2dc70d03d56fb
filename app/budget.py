"""The bytes that requests may hold in memory while they wait, over all models together."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from app.errors import BodyTooLarge, QueueFull

# A few large uploads must not shut out all others: once the others hold more than this part of the
# bytes, a request that holds more than that one leaves as much free.
_RESERVED_SHARE = 4
_SMALL_SHARE = 256

# After a second the queue has moved, whatever its length: a batch takes milliseconds.
RETRY_AFTER = {"Retry-After": "1"}


class ByteBudget:
    """How many bytes are held, and how many may be. Used on the event loop alone.

    What counts is what has arrived, not what was announced: clients that announce much and send
    slowly must not shut out the others. An announcement that does not fit is refused all the same,
    before any of it is read.

    Args:
        max_bytes: of uploaded files and of decoded pixels that wait.
        on_change: called with every change, in bytes.

    Attributes:
        held_bytes: of all holds.
    """

    def __init__(
        self, max_bytes: int, on_change: Callable[[int], None] = lambda change: None
    ) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0
        self._on_change = on_change

    def change(self, size_bytes: int) -> None:
        """Count more, or less, as held; for holds."""
        if size_bytes:
            self.held_bytes += size_bytes
            self._on_change(size_bytes)

    def check(self, size_bytes: int, held_bytes: int = 0) -> None:
        """Refuse what would not fit at the moment.

        Args:
            size_bytes: to be held.
            held_bytes: by the same request already.

        Raises:
            QueueFull: it would not.
        """
        reserved = self.max_bytes // _RESERVED_SHARE
        room = self.max_bytes - self.held_bytes
        if (
            held_bytes + size_bytes > self.max_bytes // _SMALL_SHARE
            and self.held_bytes - held_bytes > reserved
        ):
            room -= reserved
        if size_bytes > room:
            raise QueueFull(
                f"No room for {size_bytes} more bytes beside those of the requests that wait.",
                headers=RETRY_AFTER,
            )


class ByteHold:
    """The bytes that one request holds; a context manager that gives all of them back."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._held_bytes = 0

    def expect(self, size_bytes: int) -> None:
        """Refuse what is announced and would not fit at the moment; holds nothing.

        Raises:
            QueueFull: there is no room.
        """
        self._budget.check(size_bytes, self._held_bytes)

    def add(self, size_bytes: int) -> None:
        """Hold more.

        Raises:
            BodyTooLarge: there would be no room if nobody else held anything; nothing was added.
            QueueFull: there is no room; nothing was added.
        """
        if self._held_bytes + size_bytes > self._budget.max_bytes:
            raise BodyTooLarge(
                f"Its files and their pixels take {self._held_bytes + size_bytes} bytes; all "
                f"requests together may hold {self._budget.max_bytes}."
            )
        self._budget.check(size_bytes, self._held_bytes)
        self._held_bytes += size_bytes
        self._budget.change(size_bytes)

    def give_back(self, size_bytes: int) -> None:
        """Hold less."""
        self._held_bytes -= size_bytes
        self._budget.change(-size_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.give_back(self._held_bytes)
