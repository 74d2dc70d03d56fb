import asyncio
import logging

import pytest

from app.metrics import Metrics
from app.reports import Reports
from app.trace import Trace


def test_requests_are_counted_and_those_of_one_turn_logged_together(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "app.access")
    metrics = Metrics()

    async def scenario() -> None:
        reports = Reports(metrics)
        reports.ended(Trace("one"), "POST", "/classify", 200)
        reports.ended(Trace("two", error="queue_full"), "POST", "/classify", 503)
        assert not caplog.records
        await asyncio.sleep(0)
        reports.ended(Trace("three"), "GET", "/models", 200)
        await asyncio.sleep(0)

    asyncio.run(scenario())
    entries = [[fields for _, fields in record.__dict__["entries"]] for record in caplog.records]
    assert [[fields["request_id"] for fields in turn] for turn in entries] == [
        ["one", "two"],
        ["three"],
    ]
    assert [fields.get("error") for fields in entries[0]] == [None, "queue_full"]
    counted = metrics.render().decode()
    for series in (
        'limbeck_requests_total{method="POST",route="/classify",status="503"} 1.0',
        'limbeck_request_seconds_count{route="/classify"} 2.0',
        'limbeck_rejected_total{reason="queue_full"} 1.0',
    ):
        assert series in counted
