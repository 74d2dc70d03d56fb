"""The end of a server: nothing that was accepted is lost, and nothing keeps it from ending."""

import http.client
import itertools
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from app.listener import bind
from tests.bundles import Design, make_bundle
from tests.images import PGM_TYPE, pgm
from tests.server_process import TIMEOUT_S, connected, environment, server, wait_until

CLIENTS = 4

closing_the_terminal_matters = pytest.mark.skipif(
    not hasattr(signal, "SIGHUP") or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN,
    reason="under nohup SIGHUP is to be ignored",
)


@dataclass
class Load:
    """Clients that ask one thing after another, of whoever listens on the port.

    Attributes:
        answered: complete answers with status 200.
        lost: requests whose connection was accepted, and which got anything else.
    """

    port: int
    answered: "itertools.count[int]" = field(default_factory=itertools.count)
    total: int = 0
    lost: list[str] = field(default_factory=list)
    enough: threading.Event = field(default_factory=threading.Event)

    def ask(self, keep_alive: bool) -> None:
        """One client, until it is enough."""
        connection = None
        while not self.enough.is_set():
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
                try:
                    connection.connect()
                except ConnectionRefusedError:
                    connection.close()
                    connection = None
                    continue
            try:
                connection.request("POST", "/classify", pgm(102), PGM_TYPE)
                answer = connection.getresponse()
                content = answer.read()
                if answer.status != 200:
                    self.lost.append(f"{answer.status}: {content!r}")
                self.total = next(self.answered)
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(f"{error!r}, kept alive: {keep_alive}")
                connection.close()
                connection = None
                continue
            if not keep_alive or answer.will_close:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_no_accepted_request_is_lost_in_a_restart(models_dir: Path, workers: int) -> None:
    with bind("127.0.0.1", 0) as held:
        port = held.getsockname()[1]
    load = Load(port)
    settings = {"default_model": "tiny", "workers": workers, "port": port, "shutdown_delay_s": 0.5}
    with ThreadPoolExecutor(2 * CLIENTS) as pool:
        try:
            with server(models_dir, **settings) as first:
                clients = [
                    pool.submit(load.ask, keep_alive=number % 2 == 0)
                    for number in range(2 * CLIENTS)
                ]
                wait_until(lambda: load.total >= 100)
                first.process.send_signal(signal.SIGTERM)
                first.end()
                assert first.process.returncode == 0
            at_the_end = load.total
            with server(models_dir, **settings):
                wait_until(lambda: load.total >= at_the_end + 100)
                load.enough.set()
                for client in clients:
                    client.result()  # before the server goes
        finally:
            load.enough.set()
    assert load.lost == []


def test_a_request_that_comes_on_a_new_connection_at_the_end_is_answered(models_dir: Path) -> None:
    with server(models_dir, default_model="tiny", shutdown_delay_s=0) as running:
        body = pgm(102)
        head = b"POST /classify HTTP/1.1\r\nHost: test\r\nContent-Type: image/png\r\n"
        with connected(running.client) as begun, connected(running.client) as unused:
            begun.sendall(head)
            running.client.get("/health/live")  # by now the others are accepted
            running.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not listens(running.client))
            begun.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
            with begun.makefile("rb") as answer:
                assert answer.read().startswith(b"HTTP/1.1 200 ")
            assert unused.recv(1) == b""
        running.end()
        assert running.process.returncode == 0


def listens(client: httpx.Client) -> bool:
    try:
        with socket.create_connection((client.base_url.host, client.base_url.port or 0), 0.2):
            return True
    except OSError:
        return False


def test_a_hanging_inference_fails_both_probes_and_ends_a_lone_process(tmp_path: Path) -> None:
    make_bundle(tmp_path, "slow", 1, Design(work=10_000_000))
    # The deadline would stop it: it counts as hanging before that.
    limits = {"request_timeout_s": TIMEOUT_S, "hang_seconds": 1, "drain_seconds": 1}
    with (
        server(tmp_path, shutdown_delay_s=TIMEOUT_S, max_batch_size=1, **limits) as running,
        ThreadPoolExecutor(3) as pool,
    ):
        assert running.client.get("/health/live").status_code == 200

        def classify() -> httpx.Response:
            return running.client.post("/classify", content=pgm(102), headers=PGM_TYPE)

        answers = [pool.submit(classify) for _ in range(3)]
        wait_until(lambda: running.client.get("/health/live").status_code == 503)
        assert running.client.get("/health/live").json()["code"] == "not_live"
        assert running.client.get("/health/ready").json()["code"] == "not_ready"
        running.log.next_with("must be restarted")
        running.log.next_with("it ends, to be started again")
        running.process.send_signal(signal.SIGINT)  # which waits for nobody to notice
        running.end()
        assert running.process.returncode == 3
        # Cut off, or told so before; none got an answer.
        assert all(answer.exception() or answer.result().is_server_error for answer in answers)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux' /proc")
@closing_the_terminal_matters
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_bundles_are_loaded_ends_the_process(
    models_dir: Path, number: signal.Signals
) -> None:
    # The first process of a container would never get a signal that it does not handle.
    process = subprocess.Popen(
        [sys.executable, "-m", "app"],
        env=environment(models_dir),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )

    def handles_signals() -> bool:
        # SIGHUP, the last that is asked for: who measures coverage handles SIGTERM earlier.
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
        return bool(int(caught.split()[1], 16) >> (signal.SIGHUP - 1) & 1)

    wait_until(handles_signals)
    process.send_signal(number)
    said, complained = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    assert b"serving on" not in said
    assert complained == b""


@closing_the_terminal_matters
def test_a_terminal_that_is_closed_ends_it_in_order(models_dir: Path) -> None:
    with server(models_dir, default_model="tiny", shutdown_delay_s=0) as running:
        running.process.send_signal(signal.SIGHUP)
        running.end()
        assert running.process.returncode == 0
