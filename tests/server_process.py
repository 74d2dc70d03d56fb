"""The server as a process of its own."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[1]
# Only a server that hangs takes so long, on however busy a machine.
TIMEOUT_S = 120


def environment(models_dir: Path, **settings: object) -> Mapping[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("LIMBECK_")}
    chosen = {"MODELS_DIR": models_dir, "DEVICE": "cpu", "MAX_BATCH_SIZE": 2, "PORT": 0} | settings
    return {
        **inherited,
        "PYTHONPATH": str(ROOT),
        **{f"LIMBECK_{name.upper()}": str(value) for name, value in chosen.items()},
    }


@dataclass
class Server:
    """A running server process."""

    process: subprocess.Popen[str]
    client: httpx.Client

    def end(self) -> list[dict[str, object]]:
        """Wait for the process's end; returns the rest of its log."""
        rest, _ = self.process.communicate(timeout=TIMEOUT_S)
        return [json.loads(line) for line in rest.splitlines()]


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
    try:
        assert process.stdout is not None
        address = ""
        for line in process.stdout:
            message = json.loads(line)["message"]
            if message.startswith("serving on "):
                address = message.removeprefix("serving on ")
                break
        with httpx.Client(base_url=address, timeout=TIMEOUT_S, trust_env=False) as client:
            assert client.get("/health/ready").status_code == 200
            yield Server(process, client)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


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
        time.sleep(0.02)  # each question is a line in a log that nobody reads yet, in a small pipe


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
