"""Lanes and their dispatcher, with runs that the test holds back and lets go."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Sequence

import pytest

from app.batching import Dispatcher
from app.errors import (
    ClientGone,
    DeadlineExceeded,
    InferenceFailed,
    NotReady,
    QueueFull,
    ServiceError,
)
from app.lane import Lane, Limits
from app.stop import Stop

FAR = 60.0


class Doubling:
    """A run that doubles numbers, waits at a gate, and remembers its batches."""

    def __init__(self, *, open: bool = True) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.batches: list[list[int]] = []
        if open:
            self.gate.set()

    def __call__(self, items: Sequence[int], stop: Stop) -> list[int | ServiceError]:
        self.batches.append(list(items))
        self.entered.set()
        assert self.gate.wait(FAR)
        if 13 in items:
            raise RuntimeError("unlucky")
        return [InferenceFailed("odd") if item < 0 else 2 * item for item in items]


class Bench:
    """A dispatcher with one lane."""

    def __init__(self, run: Doubling, limits: Limits | None = None) -> None:
        self.run = run
        self.sizes: list[int] = []
        self.depths: list[int] = []
        self.dispatcher = Dispatcher()
        self.lane: Lane[int, int] = Lane(
            self.dispatcher,
            run,
            limits or Limits(),
            on_batch=self.sizes.append,
            on_depth=self.depths.append,
        )
        self.dispatcher.add(self.lane)

    async def __aenter__(self) -> "Bench":
        self.dispatcher.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.run.gate.set()
        assert await self.dispatcher.close(FAR)

    async def ask(self, *items: int, timeout_s: float = FAR) -> list[int]:
        with self.lane.reserve(len(items)) as reservation:
            futures = reservation.submit(items, time.monotonic() + timeout_s)
            return [(await future).result for future in futures]

    def begin(self, *items: int, timeout_s: float = FAR) -> "asyncio.Task[list[int]]":
        return asyncio.create_task(self.ask(*items, timeout_s=timeout_s))

    async def occupy(self) -> "asyncio.Task[list[int]]":
        """Let one item reach the thread, which then waits at the gate."""
        task = self.begin(0)
        await asyncio.to_thread(self.run.entered.wait, FAR)
        return task


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_an_item_is_answered() -> None:
    async def scenario() -> None:
        async with Bench(Doubling()) as bench:
            assert await bench.ask(1) == [2]
            assert await bench.ask(1, 2, 3) == [2, 4, 6]
            assert bench.sizes == [1, 3]
            assert bench.depths == [1, -1, 3, -3]

    asyncio.run(scenario())


def test_what_waits_becomes_the_next_batch() -> None:
    async def scenario() -> None:
        async with Bench(Doubling(open=False), Limits(batch_size=3)) as bench:
            first = await bench.occupy()
            others = [bench.begin(number) for number in range(1, 6)]
            await settle()
            bench.run.gate.set()
            assert await asyncio.gather(*others) == [[2], [4], [6], [8], [10]]
            await first
            assert bench.run.batches == [[0], [1, 2, 3], [4, 5]]

    asyncio.run(scenario())


def test_what_comes_together_is_computed_together() -> None:
    async def scenario() -> None:
        async with Bench(Doubling()) as bench:
            together = [bench.begin(number) for number in range(5)]
            assert await asyncio.gather(*together) == [[0], [2], [4], [6], [8]]
            assert bench.run.batches == [[0, 1, 2, 3, 4]]

    asyncio.run(scenario())


def test_a_full_queue_refuses_at_once_and_recovers() -> None:
    async def scenario() -> None:
        async with Bench(Doubling(open=False), Limits(queue_size=2)) as bench:
            first = await bench.occupy()
            waiting = bench.begin(1)
            await settle()
            with pytest.raises(QueueFull) as refused:
                await bench.ask(2, 3)
            assert refused.value.headers == {"Retry-After": "1"}
            last = bench.begin(2)
            await settle()
            with pytest.raises(QueueFull):
                await bench.ask(3)
            bench.run.gate.set()
            assert [await first, await waiting, await last] == [[0], [2], [4]]
            assert await bench.ask(5, 6) == [10, 12]

    asyncio.run(scenario())


def test_places_are_taken_before_the_items_exist_and_given_back() -> None:
    async def scenario() -> None:
        async with Bench(Doubling(), Limits(queue_size=2)) as bench:
            with pytest.raises(ValueError, match="broken image"), bench.lane.reserve(2):
                with pytest.raises(QueueFull):
                    bench.lane.reserve(1)
                raise ValueError("broken image")
            assert await bench.ask(1, 2) == [2, 4]

    asyncio.run(scenario())


def test_an_expired_item_costs_no_compute() -> None:
    async def scenario() -> None:
        async with Bench(Doubling(open=False)) as bench:
            first = await bench.occupy()
            expired = bench.begin(1, timeout_s=0.0)
            alive = bench.begin(2)
            await settle()
            bench.run.gate.set()
            assert await alive == [4]
            with pytest.raises(DeadlineExceeded):
                await expired
            await first
            assert bench.run.batches == [[0], [2]]

    asyncio.run(scenario())


def test_an_abandoned_item_costs_no_compute_and_frees_its_place() -> None:
    async def scenario() -> None:
        async with Bench(Doubling(open=False), Limits(queue_size=1)) as bench:
            first = await bench.occupy()
            abandoned = bench.begin(1)
            await settle()
            abandoned.cancel()
            await asyncio.gather(abandoned, return_exceptions=True)
            alive = bench.begin(2)  # there would be no room for it beside the abandoned one
            await settle()
            bench.run.gate.set()
            assert await alive == [4]
            await first
            assert bench.run.batches == [[0], [2]]
            assert bench.depths == [1, -1, 1, -1, 1, -1]

    asyncio.run(scenario())


def test_an_item_failed_from_outside_is_left_out_and_frees_its_place() -> None:
    async def scenario() -> None:
        async with Bench(Doubling(open=False), Limits(queue_size=1)) as bench:
            first = await bench.occupy()
            with bench.lane.reserve(1) as reservation:
                (gone,) = reservation.submit([1], time.monotonic() + FAR)
                gone.set_exception(ClientGone())
            alive = bench.begin(2)
            await settle()
            bench.run.gate.set()
            assert await alive == [4]
            await first
            assert bench.run.batches == [[0], [2]]

    asyncio.run(scenario())


def test_a_poisoned_item_fails_alone() -> None:
    async def scenario() -> None:
        async with Bench(Doubling(open=False)) as bench:
            first = await bench.occupy()
            others = [bench.begin(number) for number in (12, 13, 14)]
            await settle()
            bench.run.gate.set()
            results = await asyncio.gather(*others, return_exceptions=True)
            await first
            assert results[0] == [24] and results[2] == [28]
            assert isinstance(results[1], InferenceFailed)
            assert await bench.ask(1) == [2]

    asyncio.run(scenario())


def test_an_item_whose_result_is_an_error_fails_alone() -> None:
    async def scenario() -> None:
        async with Bench(Doubling()) as bench:
            with pytest.raises(InferenceFailed, match="odd"):
                await bench.ask(1, -1, -2)
            assert await bench.ask(3) == [6]

    asyncio.run(scenario())


def test_nobody_waits_on_an_idle_machine() -> None:
    async def scenario() -> None:
        async with Bench(Doubling(), Limits(delay_s=FAR)) as bench:
            assert await asyncio.wait_for(bench.ask(1), FAR / 2) == [2]

    asyncio.run(scenario())


def test_a_batch_waits_for_what_is_about_to_come() -> None:
    async def scenario() -> None:
        async with Bench(Doubling(), Limits(delay_s=FAR)) as bench:
            with bench.lane.reserve(1) as coming:
                early = bench.begin(1)
                await settle()
                (late,) = coming.submit([2], time.monotonic() + FAR)
                assert (await late).result == 4
                assert await early == [2]
            assert bench.run.batches == [[1, 2]]

    asyncio.run(scenario())


def test_a_batch_waits_no_longer_for_what_will_not_come() -> None:
    async def scenario() -> None:
        async with Bench(Doubling(), Limits(delay_s=FAR)) as bench:
            with bench.lane.reserve(1):
                early = bench.begin(1)
                await settle()
                assert not early.done()
            assert await asyncio.wait_for(early, FAR / 2) == [2]

    asyncio.run(scenario())


def test_a_full_batch_waits_for_nothing() -> None:
    async def scenario() -> None:
        async with Bench(Doubling(), Limits(batch_size=2, delay_s=FAR)) as bench:
            with bench.lane.reserve(1):
                assert await asyncio.wait_for(bench.ask(1, 2), FAR / 2) == [2, 4]

    asyncio.run(scenario())


def test_closing_answers_what_waits_and_refuses_the_rest() -> None:
    async def scenario() -> None:
        async with Bench(Doubling(open=False)) as bench:
            first = await bench.occupy()
            waiting = bench.begin(1)
            await settle()
            closing = asyncio.create_task(bench.dispatcher.close(FAR))
            while not bench.dispatcher.closed:
                await asyncio.sleep(0)
            with pytest.raises(NotReady):
                bench.lane.reserve(1)
            bench.run.gate.set()
            assert [await first, await waiting] == [[0], [2]]
            assert await closing

    asyncio.run(scenario())


def test_a_run_that_hangs_does_not_hold_up_closing() -> None:
    async def scenario() -> None:
        run = Doubling(open=False)
        bench = Bench(run)
        bench.dispatcher.start()
        stuck = await bench.occupy()
        assert not await bench.dispatcher.close(0.0)
        run.gate.set()
        assert await stuck == [0]

    asyncio.run(scenario())


def test_a_dispatcher_that_never_started_closes() -> None:
    assert asyncio.run(Dispatcher().close(FAR))


def test_a_lane_is_drained_when_nothing_is_reserved_waits_or_is_computed() -> None:
    async def scenario() -> None:
        async with Bench(Doubling(open=False), Limits(batch_size=1)) as bench:
            first = await bench.occupy()
            waiting = bench.begin(1)
            abandoned = bench.begin(2)
            coming = bench.lane.reserve(1)
            draining = asyncio.create_task(bench.lane.drain())
            await settle()
            coming.__exit__(None, None, None)
            abandoned.cancel()
            await settle()
            assert not draining.done()
            bench.run.gate.set()
            await draining
            assert first.done() or await first == [0]
            assert await waiting == [2]
            await bench.lane.drain()  # of an idle lane it is at once
            bench.dispatcher.remove(bench.lane)
            assert not bench.dispatcher.busy

    asyncio.run(scenario())


def test_a_dispatcher_keeps_nothing_of_the_last_batch() -> None:
    async def scenario() -> None:
        async with Bench(Doubling()) as bench:
            run = weakref.ref(bench.run)
            assert await bench.ask(1) == [2]
            bench.dispatcher.remove(bench.lane)
            del bench.lane
            bench.run = Doubling()
            gc.collect()
            while run() is not None:
                await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(scenario(), FAR))


def test_the_lane_that_waits_longest_is_served_first() -> None:
    async def scenario() -> None:
        async with Bench(Doubling(open=False)) as bench:
            first = await bench.occupy()
            order: list[str] = []

            def note(name: str) -> "Lane[int, int]":
                def run(items: Sequence[int], stop: Stop) -> list[int | ServiceError]:
                    order.append(name)
                    return list(items)

                lane: Lane[int, int] = Lane(bench.dispatcher, run, Limits())
                bench.dispatcher.add(lane)
                return lane

            late, early = note("late"), note("early")
            with early.reserve(1) as one, late.reserve(1) as other:
                futures = one.submit([1], time.monotonic() + FAR)
                futures += other.submit([2], time.monotonic() + FAR)
                bench.run.gate.set()
                assert [(await future).result for future in futures] == [1, 2]
            await first
            assert order == ["early", "late"]

    asyncio.run(scenario())


def test_a_batch_that_waits_for_company_keeps_no_other_lane_waiting() -> None:
    async def scenario() -> None:
        async with Bench(Doubling(), Limits(delay_s=FAR)) as bench:
            run = Doubling()
            other: Lane[int, int] = Lane(bench.dispatcher, run, Limits(delay_s=FAR))
            bench.dispatcher.add(other)
            with bench.lane.reserve(1), bench.lane.reserve(1) as waiting:
                (held,) = waiting.submit([1], time.monotonic() + FAR)
                with other.reserve(1) as reservation:
                    (future,) = reservation.submit([2], time.monotonic() + FAR)
                    assert (await asyncio.wait_for(future, FAR / 2)).result == 4
                assert not held.done()

    asyncio.run(scenario())


def test_a_batch_that_fails_is_tried_again_in_halves() -> None:
    async def scenario() -> None:
        async with Bench(Doubling(open=False)) as bench:
            first = await bench.occupy()
            others = [bench.begin(number) for number in range(10, 18)]
            await settle()
            bench.run.gate.set()
            results = await asyncio.gather(*others, return_exceptions=True)
            await first
            assert [type(result) for result in results].count(InferenceFailed) == 1
            assert isinstance(results[3], InferenceFailed)
            # 13 is looked for in halves; what is not to blame is computed together.
            assert bench.run.batches == [
                [0], [10, 11, 12, 13, 14, 15, 16, 17],
                [10, 11, 12, 13], [10, 11], [12, 13], [12], [13], [14, 15, 16, 17],
            ]  # fmt: skip

    asyncio.run(scenario())


class Endless:
    """A run that only ends when it is asked to, and then fails as an inference does."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.stopped = threading.Event()
        self.runs = 0

    def __call__(self, items: Sequence[int], stop: Stop) -> list[int | ServiceError]:
        self.runs += 1
        if 0 in items:
            stop.call(self.stopped.set)
            self.entered.set()
            assert self.stopped.wait(FAR)
            raise RuntimeError("stopped")
        return list(items)


def test_a_computation_that_nobody_waits_for_any_more_is_stopped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        dispatcher, run = Dispatcher(), Endless()
        lane: Lane[int, int] = Lane(dispatcher, run, Limits())
        dispatcher.add(lane)
        dispatcher.start()
        with lane.reserve(1) as leaving, lane.reserve(1) as staying:
            (left,) = leaving.submit([0], time.monotonic() + FAR)
            (stayed,) = staying.submit([0], time.monotonic() + FAR)
            await asyncio.to_thread(run.entered.wait, FAR)
            left.set_exception(ClientGone())
            leaving.__exit__(None, None, None)
            assert not run.stopped.is_set()  # one of the batch still waits
            stayed.set_exception(DeadlineExceeded())
        with lane.reserve(1) as last:
            (future,) = last.submit([1], time.monotonic() + FAR)
            assert (await future).result == 1
        assert run.stopped.is_set()
        assert run.runs == 2  # what was stopped is not tried again
        assert await dispatcher.close(FAR)

    asyncio.run(scenario())
    # Nothing went wrong, so nothing is told.
    assert caplog.records == []


def test_a_place_is_looked_for_without_being_held() -> None:
    async def scenario() -> None:
        async with Bench(Doubling(), Limits(queue_size=1)) as bench:
            bench.lane.check(1)
            with bench.lane.reserve(1), pytest.raises(QueueFull):
                bench.lane.check(1)
            assert await bench.ask(1) == [2]

    asyncio.run(scenario())
