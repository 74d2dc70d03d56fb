"""Server processes: pinned to a core, waited for, weighed, and stopped with all their children."""

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.exchange import exchange

ROOT = Path(__file__).parents[1]

_POLL_S = 0.02
_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 15.0
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


class ServerFailed(RuntimeError):
    """A server that does not start or does not answer as it should; the message says why."""


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Run on this core only; processes started meanwhile stay on it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """A port that nothing listens on at the moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class ServerProcess:
    """A server on one core; a context manager that stops it.

    Args:
        command: what to start, from the root of the repository.
        environment: added to this process's own.
        core: the one it and its children run on.
        log: where its output goes.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], core: int, log: Path
    ) -> None:
        self._log = log
        _adopt_orphans()
        self._others = set(process_tree(os.getpid()))
        self.started = time.perf_counter()
        with pinned(core), log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self, port: int, request: bytes) -> float:
        """Seconds from the start to the first 200 to this request.

        Raises:
            ServerFailed: it ended, or took too long.
        """
        found = "nothing listens"
        while time.perf_counter() - self.started < _START_TIMEOUT_S:
            if self._process.poll() is not None:
                raise ServerFailed(f"ended with {self._process.returncode}: {self._last_words()}")
            try:
                status, body = exchange(port, request)
                if status == 200:
                    return time.perf_counter() - self.started
                found = f"{status} {body[:200]!r}"
            except OSError as error:
                found = str(error)
            time.sleep(_POLL_S)
        raise ServerFailed(f"not ready within {_START_TIMEOUT_S:.0f} s: {found}")

    def memory_bytes(self) -> int:
        """Resident memory of the whole process tree; what two processes share counts twice."""
        page = os.sysconf("SC_PAGE_SIZE")
        total = 0
        for pid in self._family():
            with suppress(OSError):  # it ended meanwhile
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
        return total

    def open_files(self) -> int:
        """File descriptors of the whole process tree, connections among them."""
        total = 0
        for pid in self._family():
            with suppress(OSError):  # it ended meanwhile
                total += len(os.listdir(f"/proc/{pid}/fd"))
        return total

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ask it to end, and end what is left of it."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_TIMEOUT_S)
        while family := self._family():
            for pid in family:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
            for pid in family:
                with suppress(ChildProcessError):  # not ours yet: its parent was there first
                    os.waitpid(pid, 0)

    def _family(self) -> list[int]:
        """The server and all that came of it, orphans too."""
        return [pid for pid in process_tree(os.getpid()) if pid not in self._others]

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "without a word"


def process_tree(pid: int) -> list[int]:
    """This process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            # State and parent; the name before them stands in brackets and may hold anything.
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    tree, waiting = [], [pid]
    while waiting:
        tree.append(waiting.pop())
        waiting += children.get(tree[-1], [])
    return tree


def _adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ended, so that none is lost sight of."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
