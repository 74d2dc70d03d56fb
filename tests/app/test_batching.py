"""What a dispatcher tells of its own health; `tests/app/test_lane.py` has its work."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from app.batching import Batch, Dispatcher

FAR = 60.0


class Once:
    """A queue with one batch, which fails with the error or is computed."""

    def __init__(self, error: BaseException | None) -> None:
        self._waiting = [error]

    def __len__(self) -> int:
        return 1

    def waits_since(self) -> float | None:
        return 0.0 if self._waiting else None

    def due(self) -> float:
        return 0.0

    def take(self) -> "Once":
        self._error = self._waiting.pop()
        return self

    def compute(self) -> None:
        if self._error is not None:
            raise self._error

    def deliver(self) -> None:
        pass


class Watched(Dispatcher):
    """Notes whether the thread counts as busy when it hands a batch over."""

    def _deliver(self, batch: Batch) -> bool:
        self.busy_at_delivery = self.busy
        return super()._deliver(batch)


def test_whoever_has_an_answer_finds_the_thread_idle() -> None:
    async def compute() -> Watched:
        dispatcher = Watched()
        dispatcher.add(Once(None))
        dispatcher.start()
        await dispatcher.close(FAR)
        return dispatcher

    assert asyncio.run(compute()).busy_at_delivery is False


def test_a_thread_that_dies_is_an_illness() -> None:
    async def die() -> str | None:
        dispatcher = Dispatcher()
        dispatcher.add(Once(MemoryError()))
        dispatcher.start()
        await dispatcher.close(FAR)
        assert not dispatcher.busy
        return dispatcher.illness(FAR)

    assert asyncio.run(die()) == "the inference thread died"


def test_a_batch_that_takes_too_long_is_an_illness_while_it_runs() -> None:
    dispatcher = Dispatcher()
    assert dispatcher.illness(10) is None
    dispatcher.computing_since = time.monotonic() - 11
    assert dispatcher.illness(10) == "an inference has been running for more than 10 s"
    assert dispatcher.illness(20) is None


def doubled(items: Sequence[int]) -> list[int]:
    if 0 in items:
        raise ValueError("zero")
    return [2 * item for item in items]


def broken() -> None:
    raise RuntimeError("the device is lost")


def test_a_broken_image_is_no_illness() -> None:
    dispatcher = Dispatcher()
    run = dispatcher.watched(doubled, lambda: None, "tiny@1")
    for _ in range(10):
        with pytest.raises(ValueError, match="zero"):
            run([0])
    assert dispatcher.illness(FAR) is None


def test_a_device_that_is_lost_is_one_until_it_works_again() -> None:
    dispatcher = Dispatcher()
    run = dispatcher.watched(doubled, broken, "tiny@1")
    for _ in range(3):
        assert dispatcher.illness(FAR) is None
        with pytest.raises(ValueError, match="zero"):
            run([0])
    assert dispatcher.illness(FAR) == "tiny@1 fails on a black image as well"
    assert run([1]) == [2]
    assert dispatcher.illness(FAR) is None
