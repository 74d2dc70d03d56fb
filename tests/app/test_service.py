"""Overload, deadlines and clients that hang up, before a real server with a slow model."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from app.budget import ByteHold
from app.errors import ClientGone, QueueFull
from app.main import build_service, create_app
from app.service import Wanted
from app.settings import Settings
from app.trace import Trace
from tests.bundles import Design, make_bundle
from tests.images import PGM_TYPE, multipart, pgm
from tests.serving import running

# Steps of the slow model: some tenths of a second on any machine of these years. The slower one
# outlasts a few requests, on a busy machine too.
WORK = 20_000
MORE_WORK = 100_000


@pytest.fixture(scope="module")
def slow_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slow")
    make_bundle(folder, "slow", 1, Design(work=WORK))
    make_bundle(folder, "slower", 1, Design(work=MORE_WORK))
    return folder


def slow_app(
    models: Path,
    *,
    queue_size: int,
    request_images: int = 1,
    request_timeout_s: float = 600,
) -> FastAPI:
    return create_app(
        Settings(
            models_dir=models,
            default_model="slow",
            device="cpu",
            inference_threads=1,
            max_batch_size=1,
            max_queue_size=queue_size,
            max_request_images=request_images,
            request_timeout_s=request_timeout_s,
        )
    )


def classify(client: httpx.Client, model: str = "slow") -> httpx.Response:
    url = f"/classify?model={model}"
    return client.post(url, content=pgm(102), headers=PGM_TYPE)


def computed(client: httpx.Client) -> int:
    """How many batches of the slow model were computed."""
    for line in client.get("/metrics").text.splitlines():
        if line.startswith('limbeck_batch_size_count{model="slow"}'):
            return int(float(line.split()[-1]))
    raise AssertionError("no such series")


def occupy(client: httpx.Client, threads: ThreadPoolExecutor) -> "Future[httpx.Response]":
    """Keep the inference thread busy with the slower model, which was not used before."""
    busy = threads.submit(classify, client, "slower")
    read = 'limbeck_stage_seconds_count{model="slower",stage="read"} 1.0'
    taken = 'limbeck_queue_depth{model="slower"} 0.0'
    while not (read in (metrics := client.get("/metrics").text) and taken in metrics):
        assert not busy.done()
    return busy


@pytest.fixture(scope="module")
def small_queue(slow_models: Path) -> Iterator[httpx.Client]:
    with running(slow_app(slow_models, queue_size=1)) as client:
        yield client


def test_a_full_queue_is_told_at_once_and_the_others_are_answered(
    small_queue: httpx.Client,
) -> None:
    with ThreadPoolExecutor(6) as threads:
        busy = occupy(small_queue, threads)
        answers = list(threads.map(classify, [small_queue] * 5))
        assert busy.result().status_code == 200
    (accepted,) = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 503]
    assert accepted.json()["label"] == "grey"
    assert len(refused) == 4
    for answer in refused:
        assert answer.json()["code"] == "queue_full"
        assert answer.headers["retry-after"] == "1"
    # What was refused cost no inference.
    assert computed(small_queue) == 1
    assert classify(small_queue).status_code == 200


def test_the_event_loop_is_free_while_a_model_computes(small_queue: httpx.Client) -> None:
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(classify, small_queue)
        while not slow.done():
            assert small_queue.get("/health/live").status_code == 200
        assert slow.result().status_code == 200


def test_a_missed_deadline_is_told_in_time_and_costs_no_more(slow_models: Path) -> None:
    app = slow_app(slow_models, queue_size=4, request_images=4, request_timeout_s=0.02)
    with running(app) as client:
        body, headers = multipart(*[("file", pgm(102))] * 4)
        answer = client.post("/classify", content=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
        metrics = client.get("/metrics").text
        assert 'limbeck_rejected_total{reason="deadline_exceeded"} 1.0' in metrics
        assert 'limbeck_queue_depth{model="slow"} 0.0' in metrics
    # The end has waited for whatever was still to be computed: at most what had been started.
    registry = app.state.wiring.service.metrics.registry
    assert registry.get_sample_value("limbeck_batch_size_sum", {"model": "slow"}) <= 1


@pytest.mark.parametrize(("own_s", "client_ms"), [(600, "20"), (0.02, "600000")])
def test_the_smaller_of_two_deadlines_counts(
    slow_models: Path, own_s: float, client_ms: str
) -> None:
    with running(slow_app(slow_models, queue_size=4, request_timeout_s=own_s)) as client:
        headers = {**PGM_TYPE, "X-Request-Timeout-Ms": client_ms}
        answer = client.post("/classify", content=pgm(102), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
        patient = client.post(
            "/classify", content=pgm(0), headers=headers | {"X-Request-Timeout-Ms": "86400000"}
        )
        # A black image is no work; the service's own limit may be too short for a busy machine.
        assert patient.status_code in ((200,) if own_s > 1 else (200, 504))


def test_an_inference_that_hangs_is_ended_and_the_next_is_answered(tmp_path: Path) -> None:
    # Hours of work: without an end to it nothing would be answered any more.
    make_bundle(tmp_path, "slow", 1, Design(work=2**30))
    with running(slow_app(tmp_path, queue_size=4)) as client:
        headers = {**PGM_TYPE, "X-Request-Timeout-Ms": "100"}
        hanging = client.post("/classify", content=pgm(255), headers=headers)
        assert (hanging.status_code, hanging.json()["code"]) == (504, "deadline_exceeded")
        assert client.post("/classify", content=pgm(0), headers=PGM_TYPE).json()["label"] == "dark"


def test_what_a_request_held_is_given_back(small_queue: httpx.Client) -> None:
    for content in (pgm(0), b"no image"):
        small_queue.post("/classify", content=content, headers=PGM_TYPE)
    assert "limbeck_queue_bytes 0.0" in small_queue.get("/metrics").text


def hang_up(client: httpx.Client) -> None:
    """Send a whole request and close the connection without waiting for its answer."""
    body = pgm(102)
    head = (
        "POST /classify?model=slow HTTP/1.1\r\nHost: test\r\n"
        f"Content-Type: image/png\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    host, port = client.base_url.host, client.base_url.port
    assert port is not None
    with socket.create_connection((host, port)) as connection:
        connection.sendall(head.encode() + body)


def test_a_client_that_hangs_up_frees_its_place(slow_models: Path) -> None:
    with running(slow_app(slow_models, queue_size=8)) as client:
        with ThreadPoolExecutor(1) as threads:
            busy = occupy(client, threads)
            for _ in range(3):
                hang_up(client)
            while 'reason="client_gone"} 3.0' not in client.get("/metrics").text:
                assert not busy.done()
            assert 'limbeck_queue_depth{model="slow"} 0.0' in client.get("/metrics").text
            assert busy.result().status_code == 200
        assert computed(client) == 0


def test_the_versions_of_a_bundle_are_counted_in_one_queue_depth(settings: Settings) -> None:
    service = build_service(settings)  # never started, so that nothing leaves the queues

    def depth() -> float | None:
        return service.metrics.registry.get_sample_value("limbeck_queue_depth", {"model": "tiny"})

    async def scenario() -> None:
        async def wait(selector: str) -> None:
            await service.infer(
                [pgm(102)],
                service.catalog.find(selector),
                Wanted(plain=True),
                deadline=time.monotonic() + 60,
                gone=asyncio.Event().wait,
                trace=Trace("id"),
                hold=ByteHold(service.budget),
            )

        waiting = [asyncio.create_task(wait(selector)) for selector in ("tiny@1", "tiny@2")]
        while not depth():
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert depth() == 2
        for left, task in ((1, waiting[0]), (0, waiting[1])):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert depth() == left

    asyncio.run(scenario())
    service.codecs.close()


def test_a_client_that_hangs_up_while_its_image_waits_to_be_decoded_frees_its_place(
    settings: Settings,
) -> None:
    service = build_service(settings.model_copy(update={"max_image_pixels": 10_000_000}))
    model = service.catalog.find("tiny")
    begun, gate = threading.Event(), threading.Event()

    def occupy() -> None:
        begun.set()
        assert gate.wait(60)

    async def scenario() -> None:
        busy = service.codecs._large.submit(occupy)
        await asyncio.to_thread(begun.wait, 60)
        gone = asyncio.Event()
        with ByteHold(service.budget) as hold:
            waiting = [
                asyncio.create_task(
                    service.infer(
                        [pgm(102, side=2100)],
                        model,
                        Wanted(plain=True),
                        deadline=time.monotonic() + 60,
                        gone=gone.wait,
                        trace=Trace("id"),
                        hold=hold,
                    )
                )
                for _ in range(settings.max_queue_size)
            ]
            await asyncio.sleep(0)
            with pytest.raises(QueueFull):
                service.admit(model)
            gone.set()
            for failed in await asyncio.gather(*waiting, return_exceptions=True):
                assert isinstance(failed, ClientGone)
        # The thread is still occupied, so that none of them can have been decoded.
        service.admit(model)
        gate.set()
        busy.result()

    asyncio.run(scenario())
    service.codecs.close()
