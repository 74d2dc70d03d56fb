import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.metrics import Metrics
from app.middleware import RequestMiddleware
from app.problems import install_problem_handlers
from tests.images import PGM_TYPE, pgm
from tests.serving import running


def failing_app(metrics: Metrics) -> FastAPI:
    app = FastAPI()
    install_problem_handlers(app)
    app.add_middleware(RequestMiddleware, metrics=metrics)

    @app.get("/fails")
    async def fails(request: Request) -> Response:
        raise RuntimeError("the password is 1234")

    return app


def test_an_unknown_failure_is_logged_once_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    with running(failing_app(metrics)) as client:
        answer = client.get("/fails", headers={"X-Request-ID": "id-1"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "1234" not in answer.text
    assert answer.headers["x-request-id"] == "id-1"
    failures = [record for record in caplog.records if record.exc_info]
    assert len(failures) == 1
    assert failures[0].__dict__["fields"] == {"request_id": "id-1"}
    assert (
        b'limbeck_requests_total{method="GET",route="/fails",status="500"} 1.0' in metrics.render()
    )
    assert b'limbeck_rejected_total{reason="internal_error"} 1.0' in metrics.render()
    assert b"limbeck_inflight_requests 0.0" in metrics.render()


def test_a_request_leaves_one_line_without_its_content(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app.access")
    headers = {**PGM_TYPE, "X-Request-ID": "id-2"}
    client.post("/classify?purify=true", content=pgm(102), headers=headers)
    client.get("/secret-path")
    client.get("/health/live")  # its line comes after those of the requests before it
    fields = [
        entry
        for record in caplog.records
        if record.name == "app.access"
        for _, entry in record.__dict__["entries"]
    ]
    classified, unmatched = fields[0], fields[1]
    assert set(classified.pop("stages_ms")) == {
        "read", "decode", "queue", "purify", "classify", "encode",
    }  # fmt: skip
    assert classified.pop("duration_ms") > 0
    assert classified == {
        "request_id": "id-2",
        "method": "POST",
        "route": "/classify",
        "status": 200,
        "model": "tiny@2",
        "images": 1,
    }
    assert (unmatched["route"], unmatched["error"]) == ("unmatched", "not_found")


def test_no_line_is_made_that_nobody_reads(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "app.access")
    client.get("/health/live")
    client.get("/health/live")
    assert [record for record in caplog.records if record.name == "app.access"] == []


def test_an_answer_that_breaks_off_is_not_answered_twice() -> None:
    metrics = Metrics()
    app = failing_app(metrics)

    @app.get("/breaks")
    async def breaks() -> Response:
        async def body() -> AsyncIterator[bytes]:
            yield b"beginning"
            raise RuntimeError("in the middle")

        return StreamingResponse(body())

    with running(app) as client, pytest.raises(httpx.RemoteProtocolError):
        client.get("/breaks")
    assert b'route="/breaks",status="200"} 1.0' in metrics.render()
