"""The server as a process of its own."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx

ROOT = Path(__file__).parents[1]
# Only a server that hangs takes so long, on however busy a machine.
TIMEOUT_S = 120
# It gives its connections up before the server does, which would race with its next request.
CLIENT: dict[str, Any] = {
    "timeout": TIMEOUT_S,
    "trust_env": False,
    "limits": httpx.Limits(keepalive_expiry=1),
}


def environment(models_dir: Path, **settings: object) -> Mapping[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("LIMBECK_")}
    chosen = {"MODELS_DIR": models_dir, "DEVICE": "cpu", "MAX_BATCH_SIZE": 2, "PORT": 0} | settings
    return {
        **inherited,
        "PYTHONPATH": str(ROOT),
        **{f"LIMBECK_{name.upper()}": str(value) for name, value in chosen.items()},
    }


class Log:
    """A process's output, read all the time: a full pipe would stop whoever writes to it."""

    def __init__(self, stream: IO[str]) -> None:
        self.lines: list[str] = []
        self._stream = stream
        self._seen = 0
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._stream:
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def next_with(self, text: str) -> str:
        """The first line with the text behind those that were seen, when it comes."""
        with self._changed:
            while True:
                for number in range(self._seen, len(self.lines)):
                    if text in self.lines[number]:
                        self._seen = number + 1
                        return self.lines[number]
                self._seen = len(self.lines)
                assert not self._ended, f"the log ended without {text!r}"
                assert self._changed.wait(TIMEOUT_S), f"no line with {text!r} came"

    def rest(self) -> list[str]:
        """All that comes behind the lines that were seen, when it has ended."""
        self._reader.join(TIMEOUT_S)
        assert self._ended
        return self.lines[self._seen :]


@dataclass
class Server:
    """A running server process."""

    process: subprocess.Popen[str]
    client: httpx.Client
    log: Log

    def end(self) -> list[dict[str, object]]:
        """Wait for the process's end; returns the rest of its log."""
        self.process.wait(TIMEOUT_S)
        return [json.loads(line) for line in self.log.rest()]


@contextmanager
def server(models_dir: Path, **settings: object) -> Iterator[Server]:
    """A server on a free port, ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "app"],
        cwd=models_dir,
        env=environment(models_dir, **settings),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    log = Log(process.stdout)
    try:
        with httpx.Client(base_url=served_address(log), **CLIENT) as client:
            assert client.get("/health/ready").status_code == 200
            yield Server(process, client, log)
    finally:
        process.kill()
        process.wait()
        log.rest()
        process.stdout.close()


def served_address(log: Log) -> str:
    """Where the server says next that it serves."""
    message: str = json.loads(log.next_with('"serving on '))["message"]
    return message.removeprefix("serving on ")


def refusal(models_dir: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    """A start that must fail."""
    return subprocess.run(
        [sys.executable, "-m", "app"],
        env=environment(models_dir, **settings),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def wait_until(holds: Callable[[], object]) -> None:
    """Ask again and again, until it holds."""
    deadline = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def metric(client: httpx.Client, series: str) -> float:
    """The value of one series, told on a connection of its own; 0 if it is not there."""
    text = httpx.get(client.base_url.join("/metrics"), timeout=TIMEOUT_S, trust_env=False).text
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.M)
    return float(found[1]) if found else 0.0


def connected(client: httpx.Client) -> socket.socket:
    """A bare connection to the server."""
    assert client.base_url.port is not None
    return socket.create_connection((client.base_url.host, client.base_url.port), TIMEOUT_S)


def resident_mib(process: subprocess.Popen[str]) -> float:
    """The memory that the process has."""
    return _memory_mib(process, "VmRSS")


def peak_mib(process: subprocess.Popen[str]) -> float:
    """The most memory that the process ever had, or since its peak was forgotten."""
    return _memory_mib(process, "VmHWM")


def _memory_mib(process: subprocess.Popen[str], field: str) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith(field)]
    return int(line.split()[1]) / 1024
