"""Limbeck as the commands start it that put it under stress."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.bundles import alone, newest
from benchmarks.exchange import exchange
from benchmarks.processes import ServerFailed, ServerProcess, free_port
from benchmarks.rows import LIMBECK, SERVERS, environment

_READY = b"GET /health/ready HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Limbeck:
    """A server that is ready.

    Attributes:
        process: to be weighed.
        port: of 127.0.0.1.
        log: what it has said, a file.
    """

    process: ServerProcess
    port: int
    log: Path

    def memory_mib(self) -> float:
        """Resident memory of the whole process tree."""
        return self.process.memory_bytes() / 2**20

    def alive(self) -> bool:
        """Whether it is still ready."""
        try:
            return exchange(self.port, _READY)[0] == 200
        except OSError:
            return False


@contextmanager
def limbeck(
    bundle: Path, python: str, settings: Mapping[str, object] | None = None
) -> Iterator[Limbeck]:
    """A server with this one bundle, on a core of its own where there are two.

    Args:
        bundle: its folder.
        python: the interpreter.
        settings: other than the defaults, without their prefix.

    Raises:
        ServerFailed: it does not get ready.
    """
    server = next(server for server in SERVERS if server.name == LIMBECK)
    port = free_port()
    with TemporaryDirectory() as scratch, alone(bundle) as models_dir:
        variables = environment(server, port, bundle, models_dir)
        variables |= {f"LIMBECK_{n.upper()}": str(v) for n, v in (settings or {}).items()}
        log = Path(scratch) / "log"
        core = min(os.sched_getaffinity(0))
        with ServerProcess(server.command(python, port), variables, core, log) as process:
            process.wait_until_ready(port, _READY)
            yield Limbeck(process, port, log)


def bundle_named(models_dir: Path, name: str) -> Path:
    """The folder of a bundle's highest version.

    Raises:
        ServerFailed: there is none.
    """
    bundle = newest(models_dir, name)
    if bundle is None:
        raise ServerFailed(f"no bundle {name} in {models_dir}")
    return bundle
