import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app.budget import ByteHold
from app.catalog import Catalog
from app.engine import Task
from app.errors import UnknownModel
from app.main import build_service
from app.service import Service, Wanted
from app.settings import Settings
from app.trace import Trace
from tests.bundles import make_bundle
from tests.images import pgm

FAR = 60.0
BLACK = Task(np.zeros((1, 8, 8), np.uint8), plain=True)


@pytest.fixture
def service(tmp_path: Path, settings: Settings) -> Service:
    """A service of two small bundles, not started."""
    make_bundle(tmp_path, "left")
    make_bundle(tmp_path, "right")
    return build_service(
        settings.model_copy(update={"models_dir": tmp_path, "default_model": "left"})
    )


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + FAR
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0)


def value(service: Service, name: str, model: str) -> float | None:
    labels = {"model": model} | ({"stage": "encode"} if "stage" in name else {})
    return service.metrics.registry.get_sample_value(name, labels)


def test_who_holds_a_model_that_is_gone_is_told(service: Service) -> None:
    async def scenario() -> None:
        service.start()
        left = service.catalog.find("left")
        service.swap(service.catalog.changed("left", []))
        with pytest.raises(UnknownModel, match="left@1 was unloaded"):
            await service.infer(
                [pgm(102)],
                left,
                Wanted(plain=True),
                deadline=time.monotonic() + FAR,
                gone=asyncio.Event().wait,
                trace=Trace("id"),
                hold=ByteHold(service.budget),
            )
        await until(lambda: value(service, "limbeck_queue_depth", "left") is None)
        with pytest.raises(AttributeError):
            left.engine.run([BLACK])  # freed, although it is still held here
        # What was computed before is still to be sent, and counted.
        service.observe(left, "encode", 0.001, Trace("id"))
        assert value(service, "limbeck_stage_seconds_count", "left") == 1
        assert value(service, "limbeck_queue_depth", "right") == 0
        assert await service.close(FAR)

    asyncio.run(scenario())


def test_a_model_that_stays_keeps_its_queue(service: Service) -> None:
    async def scenario() -> None:
        # Never started, so that nothing leaves the queue.
        right = service.catalog.find("right")
        waiting = asyncio.create_task(
            service.infer(
                [pgm(102)],
                right,
                Wanted(plain=True),
                deadline=time.monotonic() + FAR,
                gone=asyncio.Event().wait,
                trace=Trace("id"),
                hold=ByteHold(service.budget),
            )
        )
        await until(lambda: value(service, "limbeck_queue_depth", "right") == 1)
        service.swap(Catalog([right], "left"))
        assert value(service, "limbeck_queue_depth", "right") == 1
        service.start()
        assert len(await waiting) == 1
        assert await service.close(FAR)

    asyncio.run(scenario())
