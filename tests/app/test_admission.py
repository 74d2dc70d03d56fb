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

    def find(self, selector: str | None) -> SimpleNamespace:
        if selector == "unknown":
            raise UnknownModel
        return SimpleNamespace(key=selector or "default")

    def admit(self, model: SimpleNamespace, places: int) -> None:
        if model.key == "full" or places > 3:
            raise QueueFull(headers={"Retry-After": "1"})


def refuse(admission: Admission, method: str, url: str, port: int | None = 8000) -> str | None:
    headers = [(b"x-request-id", b"mine")]
    answer = admission.refuse(port, method.encode(), url.encode(), headers)
    return None if answer is None else answer.decode()


@pytest.mark.parametrize(
    ("method", "url", "refused"),
    [
        ("POST", "/classify?model=full", True),
        ("POST", "/purify?a=b&model=full", True),
        ("POST", "/purify?model=other&model=full", True),
        ("POST", "/purify?mode%6c=%66ull", True),
        ("POST", "/purify?model=full&model=", False),
        ("POST", "/purify?model=full#", False),  # the route will know
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
        answer = refuse(Admission(cast(Service, busy)), method, url)
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
        assert any(line.startswith("server-timing: total;dur=") for line in lines)
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


def test_those_for_another_model_are_not_in_the_way() -> None:
    async def scenario() -> None:
        admission = Admission(cast(Service, Busy()))
        for _ in range(3):
            assert refuse(admission, "POST", "/classify?model=one") is None
        assert refuse(admission, "POST", "/classify?model=two") is None
        assert refuse(admission, "POST", "/classify?model=one") is not None

    asyncio.run(scenario())


def test_on_the_admin_port_there_are_no_uploads_to_refuse() -> None:
    async def scenario() -> None:
        admission = Admission(cast(Service, Busy()), admin_port=9000)
        assert refuse(admission, "POST", "/classify?model=full", port=9000) is None
        assert refuse(admission, "POST", "/classify?model=full", port=None) is not None

    asyncio.run(scenario())
