"""Which heads are refused; `tests/e2e/test_overload.py` has the connection around them."""

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from app.admission import Admission
from app.errors import QueueFull, UnknownModel
from app.metrics import Metrics
from app.service import Service


class Busy:
    """As much of a service as is looked at: its models, and the places in their queues."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.catalog = SimpleNamespace(find=self.find)

    def find(self, selector: str | None) -> str:
        if selector == "unknown":
            raise UnknownModel
        return selector or "default"

    def admit(self, model: str, places: int) -> None:
        if model == "full" or places > 3:
            raise QueueFull(headers={"Retry-After": "1"})


def refuse(
    admission: Admission, method: str, url: str, *headers: tuple[bytes, bytes]
) -> str | None:
    answer = admission.refuse(method.encode(), url.encode(), list(headers))
    return None if answer is None else answer.decode()


@pytest.mark.parametrize(
    ("method", "url", "refused"),
    [
        ("POST", "/classify?model=full", True),
        ("POST", "/purify?a=b&model=full", True),
        ("POST", "/purify?model=other&model=full", True),
        ("POST", "/purify?mode%6c=full", False),  # the route reads it and refuses it as well
        ("POST", "/classify", False),
        ("POST", "/classify?model=unknown", False),
        ("POST", "/v2/repository/index?model=full", False),
        ("GET", "/classify?model=full", False),
        ("GET", "/health/live", False),
    ],
)
def test_uploads_for_a_full_queue_stay_outside(method: str, url: str, refused: bool) -> None:
    async def scenario() -> None:
        busy = Busy()
        answer = refuse(Admission(cast(Service, busy)), method, url, (b"x-request-id", b"mine"))
        if not refused:
            assert answer is None
            return
        assert answer is not None
        head, _, body = answer.partition("\r\n\r\n")
        lines = head.split("\r\n")
        assert lines[0].startswith("HTTP/1.1 503 ")
        assert {"retry-after: 1", "x-request-id: mine", f"content-length: {len(body)}"} <= set(
            lines
        )
        assert '"code":"queue_full"' in body
        path = url.partition("?")[0]
        counted = busy.metrics.render().decode()
        series = f'limbeck_requests_total{{method="POST",route="{path}",status="503"}} 1.0'
        assert series in counted
        assert 'limbeck_rejected_total{reason="queue_full"} 1.0' in counted

    asyncio.run(scenario())


def test_heads_that_come_in_one_turn_of_the_loop_do_not_get_the_same_place() -> None:
    async def scenario() -> None:
        admission = Admission(cast(Service, Busy()))
        answers = [refuse(admission, "POST", "/classify") for _ in range(5)]
        assert [answer is None for answer in answers] == [True, True, True, False, False]
        await asyncio.sleep(0)
        assert refuse(admission, "POST", "/classify") is None  # what came in counts for itself now

    asyncio.run(scenario())
