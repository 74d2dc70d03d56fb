"""What a client can make the server keep before the app sees anything of it."""

import http.client
import socket
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import httpx
import pytest

from tests.images import pgm

TIMEOUT_S = 60
HEAD = b"POST /classify HTTP/1.1\r\nHost: test\r\nContent-Type: image/png\r\n"


@pytest.fixture
def connection(client: httpx.Client) -> Iterator[socket.socket]:
    """A bare connection to the server."""
    host, port = client.base_url.host, client.base_url.port
    assert port is not None
    with socket.create_connection((host, port), TIMEOUT_S) as connection:
        yield connection


@pytest.mark.parametrize(
    ("beginning", "piece"),
    [
        (b"GET /", b"x" * 1024),
        (b"GET / HTTP/1.1\r\nX: ", b"x" * 1024),
        (b"GET / HTTP/1.1\r\n", b"X: y\r\n" * 200),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 200),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x" * 1024),
    ],
    ids=["line", "header", "headers", "trailers", "chunk extension"],
)
def test_what_never_ends_ends_the_connection(
    connection: socket.socket, beginning: bytes, piece: bytes
) -> None:
    connection.sendall(beginning)
    with pytest.raises(OSError):  # broken pipe, or reset
        for _ in range(16 * 1024):
            connection.sendall(piece)


def test_headers_that_are_too_large_are_told_so(client: httpx.Client) -> None:
    host, port = client.base_url.host, client.base_url.port
    assert port is not None
    with socket.create_connection((host, port), TIMEOUT_S) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * (64 * 1024))
        with connection.makefile("rb") as answer:
            said = answer.read()
    assert said.startswith(b"HTTP/1.1 431 ")
    assert b'"code":"headers_too_large"' in said


LIVE = b"GET /health/live HTTP/1.1\r\nHost: test\r\n"
LARGE = b"X: " + b"x" * (65 * 1024) + b"\r\n"


@pytest.mark.parametrize("before", [0, 1], ids=["alone", "behind another"])
def test_headers_that_are_too_large_are_refused_however_they_arrive(
    connection: socket.socket, before: int
) -> None:
    connection.sendall((LIVE + b"\r\n") * before + LIVE + LARGE + b"\r\n")
    with connection.makefile("rb") as answer:
        assert answer.read().count(b"HTTP/1.1 200 ") <= before


def test_trailers_that_are_too_large_end_the_connection(connection: socket.socket) -> None:
    image = pgm(102)
    body = b"%x\r\n%b\r\n0\r\n" % (len(image), image)
    request = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body + LARGE + b"\r\n"
    connection.sendall(request)
    with connection.makefile("rb") as answer:
        assert b"HTTP/1.1 200 " not in answer.read()


def test_nothing_behind_what_was_refused_reaches_the_app(
    client: httpx.Client, connection: socket.socket
) -> None:
    def asked() -> list[str]:
        lines = client.get("/metrics").text.splitlines()
        return [x for x in lines if x.startswith("limbeck_requests_total") and "/models" in x]

    before = asked()
    connection.sendall(LIVE + LARGE + b"\r\n" + b"GET /models HTTP/1.1\r\nHost: test\r\n\r\n")
    with connection.makefile("rb") as answer:
        assert answer.read().startswith(b"HTTP/1.1 431 ")
    assert asked() == before


def test_what_the_app_does_not_answer_has_a_date_and_an_id(connection: socket.socket) -> None:
    connection.sendall(b"GET / HTTP/1.1\r\nX-Request-ID: mine-1\r\nX: " + b"x" * (64 * 1024))
    with connection.makefile("rb") as answer:
        assert answer.readline().startswith(b"HTTP/1.1 431 ")
        said = http.client.parse_headers(answer)
    assert said["x-request-id"] == "mine-1"
    assert parsedate_to_datetime(said["date"])


def test_large_bodies_and_many_requests_on_one_connection_pass(connection: socket.socket) -> None:
    image = pgm(102, side=100)
    chunked = b"".join(b"1\r\n%c\r\n" % byte for byte in image)  # more framing than body
    requests = [
        HEAD + b"Content-Length: %d\r\n\r\n" % len(image) + image,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked + b"0\r\n\r\n",
    ] * 8
    with connection.makefile("rb") as answers:
        for request in requests:
            connection.sendall(request)
            assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
            length = 0
            while (line := answers.readline()) != b"\r\n":
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            assert b'"label":"grey"' in answers.read(length)


# As Java's HttpClient and curl --http2 ask.
WISH = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"], ids=["at once", "later"])
def test_whoever_would_rather_speak_http_2_is_answered_in_http_1(
    connection: socket.socket, expect: bytes
) -> None:
    image = pgm(102, side=100)
    length = b"Content-Length: %d\r\n\r\n" % len(image)
    connection.sendall(HEAD + WISH + expect + length)
    with connection.makefile("rb") as answers:
        if expect:  # the body comes when the head has been read
            assert answers.readline() == b"HTTP/1.1 100 Continue\r\n"
        connection.sendall(image + HEAD + b"Connection: close\r\n" + length + image)
        assert answers.read().count(b"HTTP/1.1 200 OK\r\n") == 2


def test_any_number_of_wishes_is_answered(connection: socket.socket) -> None:
    wish = b"GET /health/live HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    connection.sendall((wish + b"\r\n") * 1300 + wish + b"Connection: close\r\n\r\n")
    with connection.makefile("rb") as answers:
        assert answers.read().count(b"HTTP/1.1 200 OK\r\n") == 1301


def test_a_tunnel_is_refused(connection: socket.socket) -> None:
    connection.sendall(b"CONNECT example.org:443 HTTP/1.1\r\nHost: test\r\nUpgrade: h2c\r\n\r\n")
    assert connection.recv(100).startswith(b"HTTP/1.1 4")


def test_what_is_no_http_is_told_so_like_every_failure(connection: socket.socket) -> None:
    connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
    with connection.makefile("rb") as answer:
        said = answer.read()
    assert said.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nx-content-type-options: nosniff\r\n" in said
    assert b'"code":"malformed_request"' in said
