"""A request to end a computation whose result nobody waits for any more."""

from collections.abc import Callable


class Stop:
    """Asked for on one thread, obeyed on another.

    Attributes:
        requested: whether the computation should end.
    """

    def __init__(self) -> None:
        self.requested = False
        self._hooks: list[Callable[[], None]] = []

    def request(self) -> None:
        """Ask the computation to end."""
        self.requested = True
        for hook in tuple(self._hooks):
            hook()

    def call(self, hook: Callable[[], None]) -> None:
        """Call `hook`, on any thread and perhaps twice, when the computation should end.

        It is kept first and the request looked at afterwards, so that one that comes in between is
        not missed.
        """
        self._hooks.append(hook)
        if self.requested:
            hook()
