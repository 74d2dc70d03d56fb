"""Overload, hanging models and clients that go, against a server process of its own."""

import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.bundles import Design, make_bundle
from tests.images import PGM_TYPE, pgm
from tests.server_process import TIMEOUT_S, Server, peak_mib, server

MIB = 1024 * 1024
# Steps that no machine comes to the end of: only being stopped ends them.
ENDLESS = 2**30
QUEUE = 8
WHITE = pgm(255)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_bundle(folder, "endless", 1, Design(work=ENDLESS))
    make_bundle(folder, "failing", 1, Design(fails=True))
    make_bundle(folder, "slow", 1, Design(work=20_000))
    return folder


@contextmanager
def surviving(models: Path, **settings: object) -> Iterator[Server]:
    """A server that lives on, whatever it answers."""
    with server(models, **settings) as own:
        yield own
        assert own.process.poll() is None


def address(client: httpx.Client) -> tuple[str, int]:
    assert client.base_url.port is not None
    return client.base_url.host, client.base_url.port


def head(model: str, length: int) -> bytes:
    return (
        f"POST /classify?model={model} HTTP/1.1\r\nHost: test\r\n"
        f"Content-Type: image/png\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


@contextmanager
def sent(client: httpx.Client, beginning: bytes) -> Iterator[socket.socket]:
    """A connection on which this was sent; it is closed in the end, whatever was answered."""
    with socket.create_connection(address(client), TIMEOUT_S) as connection:
        connection.sendall(beginning)
        yield connection


def wait_for_metric(client: httpx.Client, name: str, true: Callable[[float], bool]) -> None:
    """Ask until the metric's value is as wanted."""
    while True:
        for line in client.get("/metrics").text.splitlines():
            if line.startswith(name + " ") and true(float(line.split()[-1])):
                return


def refusal(connection: socket.socket) -> str:
    """The head of the answer that comes on this connection."""
    with connection.makefile("rb") as answer:
        lines = []
        while (line := answer.readline().strip()) != b"":
            lines.append(line.decode())
    return "\n".join(lines).lower()


def test_a_full_queue_is_told_before_the_body_is_sent_and_hangers_on_cost_nothing(
    models: Path,
) -> None:
    depth = 'limbeck_queue_depth{model="endless"}'
    limits = {"max_queue_size": 1, "max_request_images": 1, "max_batch_size": 1}
    white = pgm(255)
    request = head("endless", len(white)) + white
    with surviving(models, **limits) as own:
        with sent(own.client, request):
            wait_for_metric(own.client, "limbeck_inflight_requests", lambda value: value == 2)
            wait_for_metric(own.client, depth, lambda value: value == 0)  # it is being computed
            with sent(own.client, request):
                wait_for_metric(own.client, depth, lambda value: value == 1)
                with sent(own.client, head("endless", 8 * MIB)) as refused:
                    answer = refusal(refused)
                    assert answer.startswith("http/1.1 503")
                    assert "retry-after: 1" in answer
        # Both clients have gone: their places are free, and the endless inference is over.
        answered = own.client.post("/classify?model=endless", content=pgm(0), headers=PGM_TYPE)
        while answered.status_code == 503:
            answered = own.client.post("/classify?model=endless", content=pgm(0), headers=PGM_TYPE)
        assert answered.json()["label"] == "dark"


@contextmanager
def full(models: Path, **settings: object) -> Iterator[Server]:
    """A server that computes one image for ever, and another has the only place of its queue."""
    limits = {"max_queue_size": 1, "max_request_images": 1, "max_batch_size": 1}
    depth = 'limbeck_queue_depth{model="endless"}'
    known = head("endless", len(WHITE)).replace(b"Host: test", b"Host: test\r\nX-API-Key: sesame")
    request = known + WHITE
    with surviving(models, **limits, **settings) as own, ExitStack() as connections:
        connections.enter_context(sent(own.client, request))
        wait_for_metric(own.client, "limbeck_inflight_requests", lambda value: value == 2)
        wait_for_metric(own.client, depth, lambda value: value == 0)  # it is being computed
        connections.enter_context(sent(own.client, request))
        wait_for_metric(own.client, depth, lambda value: value == 1)
        yield own


# Of the refusals that do not go through the app only.
AT_ONCE = "http/1.1 503 the queue is full"


def test_a_connection_goes_on_after_a_refusal(models: Path) -> None:
    request = head("endless", len(WHITE))
    named = request.replace(b"Host: test", b"Host: test\r\nX-Request-ID: mine")
    length = b"Content-Length: %d" % len(WHITE)
    chunked = request.replace(length, b"Transfer-Encoding: chunked")
    chunks = b"3\r\n" + WHITE[:3] + b"\r\n%x\r\n" % len(WHITE[3:]) + WHITE[3:] + b"\r\n0\r\n\r\n"
    last = b"GET /health/live HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    with full(models) as own:
        # In pieces; then two at once, and one that the app answers; the last one that is let in.
        with (
            sent(own.client, named + WHITE[:10]) as connection,
            connection.makefile("rb") as answers,
        ):
            first = [answers.readline() for _ in range(2)]
            connection.sendall(WHITE[10:] + named + WHITE + chunked + chunks + last)
            rest = (b"".join(first) + answers.read()).decode("latin-1").lower()
        assert re.findall(r"http/1.1 (\d+)", rest) == ["503", "503", "503", "200"]
        assert rest.count(AT_ONCE) == 3
        assert rest.count("x-request-id: mine") == 2 and rest.count("x-request-id: ") == 4
        assert rest.count('"code":"queue_full"') == rest.count("retry-after: 1") == 3
        assert rest.count("x-content-type-options: nosniff") == rest.count("server-timing") == 4
        counted = own.client.get("/metrics").text
        assert 'limbeck_rejected_total{reason="queue_full"} 3.0' in counted
        series = 'limbeck_requests_total{method="POST",route="/classify",status="503"} 3.0'
        assert series in counted


def test_a_request_behind_a_refusal_has_its_own_time(models: Path) -> None:
    waiting = head("slow", len(WHITE)).replace(
        b"Host: test", b"Host: test\r\nX-Request-Timeout-Ms: 2500\r\nConnection: close"
    )
    refused = head("endless", len(WHITE))
    with (
        full(models, keep_alive_s=1) as own,
        sent(own.client, refused + WHITE + waiting + WHITE) as connection,
        connection.makefile("rb") as answers,
    ):
        told = answers.read().decode("latin-1").lower()
    assert re.findall(r"http/1.1 (\d+)", told) == ["503", "504"]


def test_who_does_not_fetch_refusals_is_not_read_any_more(models: Path) -> None:
    request = b"POST /classify?model=endless HTTP/1.1\r\nHost: test\r\n\r\n"
    with full(models) as own:
        before = peak_mib(own.process)
        with sent(own.client, request) as connection:
            connection.settimeout(3)
            with pytest.raises(TimeoutError):
                for _ in range(64):
                    connection.sendall(request * 10_000)
            assert own.client.get("/health/live").status_code == 200
        # Of 384 MB of answers.
        assert peak_mib(own.process) < before + 32


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"api_keys": "sesame"}, "http/1.1 401 "),
        ({"rate_limit": "2/hour"}, "http/1.1 429 "),
        ({"cors_origins": "https://example.org"}, "access-control-allow-origin"),
    ],
)
def test_keys_rates_and_origins_come_before_a_refusal(
    models: Path, settings: dict[str, object], expected: str
) -> None:
    origin = b"Host: test\r\nOrigin: https://example.org\r\nConnection: close"
    request = head("endless", len(WHITE)).replace(b"Host: test", origin)
    with full(models, **settings) as own, sent(own.client, request) as connection:
        answer = refusal(connection)
    assert expected in answer and AT_ONCE not in answer


def test_bodies_that_do_not_end_are_held_up_to_a_limit_and_given_back(models: Path) -> None:
    held = "limbeck_queue_bytes"
    limits = {"max_queue_bytes": 16 * MIB, "max_request_bytes": 16 * MIB}
    unfinished = head("slow", 4 * MIB) + bytes(4 * MIB - 1)
    with surviving(models, max_image_bytes=4 * MIB, **limits) as own:
        before = peak_mib(own.process)
        with ExitStack() as connections:
            for _ in range(3):
                connections.enter_context(sent(own.client, unfinished))
            wait_for_metric(own.client, held, lambda value: value >= 3 * (4 * MIB - 1))
            for _ in range(10):  # nothing of these is kept
                with sent(own.client, unfinished) as refused:
                    assert refusal(refused).startswith("http/1.1 503")
            assert classify(own, "slow", 102).status_code == 200  # there is room for small ones
            assert peak_mib(own.process) < before + 64
        wait_for_metric(own.client, held, lambda value: value == 0)
        assert classify(own, "slow", 102).status_code == 200


def classify(own: Server, model: str, level: int) -> httpx.Response:
    return own.client.post(f"/classify?model={model}", content=pgm(level), headers=PGM_TYPE)


def test_far_too_many_requests_are_answered_or_refused_and_none_hangs(models: Path) -> None:
    clients = 8 * QUEUE
    limits = {"max_queue_size": QUEUE, "max_request_images": 1, "max_batch_size": 2}
    with surviving(models, **limits) as own, ThreadPoolExecutor(clients) as threads:
        own.client.get("/health/live")
        before = peak_mib(own.process)
        waiting = [threads.submit(classify, own, "slow", 102) for _ in range(2 * clients)]
        while not all(future.done() for future in waiting):
            assert own.client.get("/health/ready").status_code == 200
            assert own.client.get("/metrics").status_code == 200
        answers = [future.result() for future in waiting]
        accepted = [answer for answer in answers if answer.status_code == 200]
        refused = [answer for answer in answers if answer.status_code == 503]
        assert len(accepted) + len(refused) == len(answers)
        # Whoever was refused met a full queue, which was answered.
        assert refused and len(accepted) >= QUEUE
        assert {answer.json()["label"] for answer in accepted} == {"grey"}
        assert {answer.headers["retry-after"] for answer in refused} == {"1"}
        assert {answer.json()["code"] for answer in refused} == {"queue_full"}
        assert peak_mib(own.process) < before + 64
        assert classify(own, "slow", 102).status_code == 200


def test_what_hangs_is_ended_at_its_deadline_and_the_service_lives_on(models: Path) -> None:
    with surviving(models, request_timeout_s=0.5, max_batch_size=1) as own:
        for _ in range(2):
            answer = classify(own, "endless", 255)
            assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
        # The one thread is free again, or this would wait for it until its own deadline.
        answers = [classify(own, "endless", 0) for _ in range(50)]
        assert 200 in {answer.status_code for answer in answers}


def test_an_image_that_makes_its_batch_fail_fails_alone(models: Path) -> None:
    levels = [255 if number % 16 == 5 else 102 for number in range(64)]
    with (
        surviving(models, max_batch_size=16, max_queue_delay_ms=20) as own,
        ThreadPoolExecutor(32) as threads,
    ):
        answers = list(threads.map(lambda level: classify(own, "failing", level), levels))
    for level, answer in zip(levels, answers, strict=True):
        if level == 255:
            assert (answer.status_code, answer.json()["code"]) == (500, "inference_failed")
        else:
            assert answer.json()["label"] == "grey"
