"""How several workers share one listening socket fairly.

The system wakes whoever listens, and the first to come accepts: most connections would end up with
a few of the workers, and stay there as long as they are kept alive. So each worker tells the others
how many it has, and one that has more than another lets it go first, for some milliseconds.
"""

import asyncio
import mmap
import socket
import struct
from collections.abc import Callable
from pathlib import Path

_NOBODY = -1
_CELL = struct.Struct("=i")
_PLACES = 4096

# A worker with one connection more than another waits so long; with n more, n times, up to a limit:
# the other may be busy for long.
_STEP_S = 0.002
_MOST_STEPS = 25
# A worker that is alone takes so many in one turn of its loop: a fraction of a millisecond each.
_AT_ONCE = 64
# Until another connection may have been closed, when no file can be opened.
_EXHAUSTED_S = 0.1

ProtocolFactory = Callable[[], asyncio.Protocol]


class Shares:
    """How many connections each worker has, in memory that all of them see.

    Args:
        file: the same for all of them; made if it is not there.
    """

    def __init__(self, file: Path) -> None:
        if not file.exists():
            file.write_bytes(_CELL.pack(_NOBODY) * _PLACES)
        with file.open("r+b") as opened:
            self._cells = mmap.mmap(opened.fileno(), _CELL.size * _PLACES)

    def tell(self, place: int, connections: int) -> None:
        """Say how many the worker at a place has."""
        _CELL.pack_into(self._cells, _CELL.size * place, connections)

    def forget(self, place: int) -> None:
        """The worker at this place takes no more connections."""
        self.tell(place, _NOBODY)

    def excess(self, place: int, places: int) -> int:
        """How many more the worker at a place has than the one that has least.

        Args:
            place: whose.
            places: how many workers there are.
        """
        counts: list[int] = [
            _CELL.unpack_from(self._cells, _CELL.size * i)[0] for i in range(places)
        ]
        least = min((count for count in counts if count != _NOBODY), default=0)
        return max(0, counts[place] - least)


class Acceptor:
    """Accepts from a listening socket: beside other workers one connection a turn, alone many.

    The event loop's own server takes one a turn, and under overload turns are long: a probe that
    connects would wait behind everybody who came before it, for seconds.

    Args:
        sock: perhaps shared with other workers.
        factory: makes the protocol of a connection.
        excess: how many connections more than another worker this one has; None: it is alone.
    """

    def __init__(
        self, sock: socket.socket, factory: ProtocolFactory, excess: Callable[[], int] | None
    ) -> None:
        self._socket = sock
        self._factory = factory
        self._excess = excess
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[object]] = set()
        self._closed = False

    def start(self, backlog: int) -> None:
        """Let the socket listen, and accept."""
        self._socket.setblocking(False)
        self._socket.listen(backlog)
        self._watch()

    def close(self) -> None:
        """Accept nobody more; the socket is the caller's to close."""
        self._closed = True
        self._loop.remove_reader(self._socket)

    async def wait_closed(self) -> None:
        """Return when everybody who was accepted has a protocol."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _watch(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._socket, self._newcomer)

    def _newcomer(self) -> None:
        """Somebody wants to connect."""
        if self._excess is None:
            for _ in range(_AT_ONCE):
                if not self._accept():
                    return
        elif excess := self._excess():
            self._loop.remove_reader(self._socket)
            self._loop.call_later(_STEP_S * min(excess, _MOST_STEPS), self._accept_and_watch)
        else:
            self._accept()

    def _accept_and_watch(self) -> None:
        """After others had their chance: if nobody took it, it is ours."""
        if not self._closed:
            self._watch()
            self._accept()

    def _accept(self) -> bool:
        """Take one newcomer; whether there was one."""
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False  # another worker was faster, or the client has gone
        except OSError:
            self._loop.remove_reader(self._socket)
            self._loop.call_later(_EXHAUSTED_S, self._watch)
            return False
        connection.setblocking(False)
        connecting = self._loop.connect_accepted_socket(self._factory, connection)
        task: asyncio.Task[object] = self._loop.create_task(connecting)
        self._tasks.add(task)
        task.add_done_callback(self._connected)
        return True

    def _connected(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # a client that went away meanwhile
