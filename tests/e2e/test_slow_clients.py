"""Clients that take their time: bounded in seconds and in number, and in nobody's way."""

import json
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.images import PGM_TYPE, pgm
from tests.server_process import TIMEOUT_S, Server, connected, metric, server, wait_until

PLACES = 4
HEAD = b"GET /health/live HTTP/1.1\r\nHost: test\r\n"
UPLOAD = b"POST /classify HTTP/1.1\r\nHost: test\r\nContent-Type: image/png\r\n"
ADMIN = b"POST /v2/repository/index HTTP/1.1\r\nHost: test\r\nX-API-Key: admin-key\r\n"
TOO_SLOW = 'limbeck_rejected_total{reason="request_timeout"}'


@pytest.fixture(scope="module")
def hasty(models_dir: Path) -> Iterator[Server]:
    """A server that waits a second for everything."""
    seconds = dict.fromkeys(
        ("header_timeout_s", "body_timeout_s", "write_timeout_s", "keep_alive_s"), 1
    )
    with server(models_dir, default_model="tiny", admin_key="admin-key", **seconds) as running:
        yield running


@pytest.fixture(scope="module")
def small(models_dir: Path) -> Iterator[Server]:
    """A server with few connections, each for as long as it likes."""
    with server(
        models_dir, default_model="tiny", max_connections=PLACES, header_timeout_s=10 * TIMEOUT_S
    ) as running:
        yield running


def rest(connection: socket.socket) -> bytes:
    """What comes until the connection is closed."""
    said = b""
    while piece := connection.recv(65536):
        said += piece
    return said


@pytest.mark.parametrize(
    "beginning",
    [
        HEAD,
        UPLOAD + b"Content-Length: 100\r\n\r\nbegin",
        ADMIN + b"Content-Length: 100\r\n\r\nbegin",
    ],
    ids=["head", "body", "admin's body"],
)
def test_a_request_that_does_not_come_is_told_so(hasty: Server, beginning: bytes) -> None:
    before = metric(hasty.client, TOO_SLOW)
    with connected(hasty.client) as connection:
        connection.sendall(beginning)
        said = rest(connection)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in said
    assert b"\r\ndate: " in said
    wait_until(lambda: metric(hasty.client, TOO_SLOW) == before + 1)


@pytest.mark.parametrize("request_head", [UPLOAD, ADMIN], ids=["upload", "admin"])
def test_it_is_told_with_the_id_that_the_log_has(hasty: Server, request_head: bytes) -> None:
    with connected(hasty.client) as connection:
        connection.sendall(request_head + b"Content-Length: 100\r\n\r\nbegin")
        head, _, body = rest(connection).partition(b"\r\n\r\n")
    (told,) = [line[14:] for line in head.split(b"\r\n") if line.startswith(b"x-request-id: ")]
    assert '"status":408' in hasty.log.next_with(told.decode())
    assert ("error" in json.loads(body)) == (request_head is ADMIN)


def test_what_came_quickly_buys_no_silence(hasty: Server) -> None:
    mebibyte = 1 << 20  # 16 seconds at the slowest pace that is allowed
    with connected(hasty.client) as connection:
        began = time.monotonic()
        connection.sendall(UPLOAD + b"Content-Length: %d\r\n\r\n" % (2 * mebibyte))
        connection.sendall(bytes(mebibyte))
        assert rest(connection).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began < 16


@pytest.mark.parametrize(
    "beginning",
    [b"", HEAD + b"\r\n"],
    ids=["nothing was asked", "nothing more is asked"],
)
def test_a_connection_that_is_not_used_is_closed(hasty: Server, beginning: bytes) -> None:
    with connected(hasty.client) as connection:
        connection.sendall(beginning)
        said = rest(connection)
    assert b" 408 " not in said


@pytest.mark.parametrize(
    ("beginning", "drop"),
    [
        (b"", b"\r\n"),
        (HEAD, b"X: y\r\n"),
        (UPLOAD + b"Content-Length: 100000\r\n\r\n", b"x"),
        (UPLOAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
    ids=["empty lines", "headers", "body", "chunks"],
)
def test_a_trickle_is_not_enough(hasty: Server, beginning: bytes, drop: bytes) -> None:
    with connected(hasty.client) as connection:
        connection.sendall(beginning)
        connection.settimeout(0.1)
        deadline = time.monotonic() + TIMEOUT_S
        try:
            while time.monotonic() < deadline:
                connection.sendall(drop)
                try:
                    if not connection.recv(65536):
                        return
                except TimeoutError:
                    pass
        except OSError:
            return
    raise AssertionError("the connection was kept")


def test_a_client_that_does_not_take_its_answers_is_cut_off(hasty: Server) -> None:
    with connected(hasty.client) as connection:
        request = b"GET /openapi.json HTTP/1.1\r\nHost: test\r\n\r\n"
        connection.setblocking(False)
        watch = select.poll()
        watch.register(connection, 0)
        deadline = time.monotonic() + TIMEOUT_S
        # More and more is asked and nothing read, until neither side can write; then it is reset.
        while not watch.poll(100):
            assert time.monotonic() < deadline
            try:
                connection.send(request * 100)
            except BlockingIOError:
                continue
            except OSError:
                break
    assert hasty.client.get("/health/live").status_code == 200


def fresh(running: Server, path: str = "/health/live") -> httpx.Response:
    """An answer on a connection of its own."""
    return httpx.get(running.client.base_url.join(path), timeout=TIMEOUT_S, trust_env=False)


def test_slow_clients_shut_nobody_out(small: Server) -> None:
    slow = [connected(small.client) for _ in range(3 * PLACES)]
    for connection in slow:
        connection.sendall(HEAD)
    refused = 0
    deadline = time.monotonic() + TIMEOUT_S
    for path in ("/health/ready", "/metrics", "/health/live"):
        while (answer := fresh(small, path)).status_code != 200:
            # Only as long as the slow ones might still be quick.
            assert answer.json()["code"] == "too_many_connections"
            assert answer.headers["Retry-After"] == "1"
            assert time.monotonic() < deadline
            refused += 1
    image = pgm(102)
    url = small.client.base_url.join("/classify")
    answer = httpx.post(url, content=image, headers=PGM_TYPE, timeout=TIMEOUT_S, trust_env=False)
    assert answer.json()["label"] == "grey"
    assert metric(small.client, 'limbeck_rejected_total{reason="too_many_connections"}') >= refused
    for connection in slow:
        connection.close()
