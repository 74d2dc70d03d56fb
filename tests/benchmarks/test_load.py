"""The load generator against a real server that keeps its own count."""

import itertools
import socket
from collections import Counter
from collections.abc import Iterator

import pytest
from fastapi import FastAPI, Request, Response

from benchmarks.exchange import exchange
from benchmarks.load import Stream, Window, run_load
from benchmarks.workloads import http_request
from tests.serving import running

BODY = b"an image of some kind"


class Counting:
    """An app that counts what it is asked, and how many asked at once."""

    def __init__(self) -> None:
        self.app = FastAPI()
        self.asked: Counter[str] = Counter()
        self.wrong_bodies = 0
        self.fails = itertools.cycle([False, True, True])
        self.app.post("/{route}")(self.answer)

    async def answer(self, route: str, request: Request) -> Response:
        if await request.body() != BODY:
            self.wrong_bodies += 1
        self.asked[route] += 1
        if route == "failing" and next(self.fails):
            return Response(status_code=503)
        headers = {"Connection": "close"} if route == "closing" else None
        return Response(b"fine", headers=headers)


@pytest.fixture
def counting() -> Counting:
    return Counting()


@pytest.fixture
def port(counting: Counting) -> Iterator[int]:
    with running(counting.app) as client:
        assert client.base_url.port is not None
        yield client.base_url.port


def request_to(route: str) -> bytes:
    return http_request(f"/{route}", BODY, "image/png", "raw")


def test_what_it_counts_is_what_the_server_answered(counting: Counting, port: int) -> None:
    (found,) = run_load(port, [Stream([request_to("fine")], 4)], Window(30.0, answers=200))
    answered = len(found.latencies_s)
    assert 200 <= answered <= 203
    # Each client was answered at least once before the window began.
    assert answered + 4 <= counting.asked["fine"]
    assert found.errors == 0 and counting.wrong_bodies == 0
    assert list(found.latencies_s) == sorted(found.latencies_s)
    # Four clients, each with one request under way at any time.
    assert sum(found.latencies_s) <= 4 * (found.seconds + found.latencies_s[-1])
    assert sum(found.latencies_s) >= 0.5 * 4 * found.seconds
    assert found.load_share > 0


def test_the_time_ends_a_measurement(port: int) -> None:
    (found,) = run_load(port, [Stream([request_to("fine")], 2)], Window(0.2))
    assert 0.19 < found.seconds < 5
    assert found.latencies_s


def test_bad_answers_are_errors_and_not_part_of_the_rate(port: int) -> None:
    (found,) = run_load(port, [Stream([request_to("failing")], 1)], Window(30.0, answers=50))
    assert len(found.latencies_s) == 50
    assert 98 <= found.errors <= 102  # two of three


def test_streams_are_counted_apart(counting: Counting, port: int) -> None:
    streams = [Stream([request_to("fine")], 3), Stream([request_to("failing")], 1)]
    fine, failing = run_load(port, streams, Window(30.0, answers=100))
    assert fine.errors == 0 and len(fine.latencies_s) >= 100
    assert failing.errors > 0
    assert counting.asked["failing"] < counting.asked["fine"]


def test_requests_are_sent_in_turn(counting: Counting, port: int) -> None:
    requests = [request_to("fine"), request_to("other")]
    run_load(port, [Stream(requests, 1)], Window(30.0, answers=20))
    assert abs(counting.asked["fine"] - counting.asked["other"]) <= 1


def test_a_server_that_closes_connections_is_connected_to_again(port: int) -> None:
    (found,) = run_load(port, [Stream([request_to("closing")], 2)], Window(30.0, answers=20))
    assert len(found.latencies_s) >= 20
    assert found.errors == 0


def test_where_nothing_listens_there_are_only_errors() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # taken, but nobody listens
        port: int = sock.getsockname()[1]
        stream = Stream([request_to("fine")], 1)
        (found,) = run_load(port, [stream], Window(0.2, settle_s=0.1))
        assert found.latencies_s == () and found.errors > 0
        with pytest.raises(OSError):
            exchange(port, request_to("fine"))


def test_a_request_that_is_never_answered_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port: int = silent.getsockname()[1]
        window = Window(0.1, settle_s=0.1, drain_s=0.1)
        (found,) = run_load(port, [Stream([request_to("fine")], 2)], window)
    assert found.latencies_s == () and found.errors == 2


def test_one_exchange_gives_status_and_body(port: int) -> None:
    assert exchange(port, request_to("fine")) == (200, b"fine")
    assert exchange(port, request_to("failing"))[0] == 200
    assert exchange(port, request_to("failing"))[0] == 503
