import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from app.batching import Dispatcher
from app.lane import Lane, Limits
from app.pause import Pause
from app.stop import Stop

FAR = 60.0


def lasted_s(
    *arrivals: tuple[float, int],
    expected: int,
    wanted: bool = True,
    beside: Callable[[], None] = lambda: None,
) -> float:
    """How long a pause lasts that expects so many, of whom some come after so many seconds."""

    async def watch() -> float:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[float] = loop.create_future()
        started = time.perf_counter()
        pause = Pause(
            lambda: None if ended.done() else ended.set_result(time.perf_counter() - started),
            wanted=wanted,
        )
        pause.begin()
        assert pause.lasts == wanted
        pause.expect(expected, loop)
        pause.end_if_done(loop)

        def arrive(count: int) -> None:
            pause.arrived(count)
            pause.end_if_done(loop)

        loop.call_soon(beside)
        for after_s, count in arrivals:
            loop.call_later(after_s, arrive, count)
        seconds = await ended
        assert not pause.lasts
        return seconds

    return asyncio.run(watch())


def busy() -> None:
    """Keep the loop from ever being idle."""
    time.sleep(0.0005)
    asyncio.get_running_loop().call_soon(busy)


def test_it_ends_when_all_have_come(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lasted_s((0.001, 1), (0.002, 1), expected=3, beside=busy) > 0.015
    monkeypatch.setattr("app.pause._LONGEST_S", FAR)
    assert lasted_s((0.001, 1), (0.002, 2), expected=3, beside=busy) < FAR / 2


def test_it_ends_when_nobody_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.pause._LONGEST_S", FAR)
    assert 0.0009 < lasted_s(expected=5) < FAR / 2


def test_it_goes_on_while_the_loop_is_busy_but_not_for_ever() -> None:
    assert 0.015 < lasted_s(expected=1000, beside=busy) < FAR / 2


def test_there_is_none_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.pause._LONGEST_S", FAR)
    assert lasted_s(expected=5, wanted=False) < FAR / 2


def test_it_does_not_end_before_it_is_known_whom_to_expect() -> None:
    ends: list[None] = []
    lasted: list[bool] = []

    async def ask_early() -> None:
        loop = asyncio.get_running_loop()
        pause = Pause(lambda: ends.append(None), wanted=True)
        pause.begin()
        pause.end_if_done(loop)  # somebody else was queued while the batch was computed
        lasted.append(pause.lasts)
        assert not ends
        pause.expect(0, loop)
        pause.end_if_done(loop)
        lasted.append(pause.lasts)

    asyncio.run(ask_early())
    assert lasted == [True, False]
    assert len(ends) == 1


def test_those_who_ask_again_are_computed_together() -> None:
    """Two come while two others are computed: from then on all four are computed together."""
    sizes: list[int] = []

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        others_came = threading.Event()

        def run(items: Sequence[int], stop: Stop) -> Sequence[int]:
            sizes.append(len(items))
            if len(sizes) == 1:
                loop.call_soon_threadsafe(begin, 2, 4)
                assert others_came.wait(FAR)
            return items

        dispatcher = Dispatcher(pauses=True)
        lane: Lane[int, int] = Lane(dispatcher, run, Limits(8, 64))
        dispatcher.add(lane)
        dispatcher.start()
        clients: list[asyncio.Task[None]] = []

        async def client(number: int) -> None:
            for _ in range(10):
                with lane.reserve(1) as reservation:
                    (future,) = reservation.submit([number], time.monotonic() + FAR)
                    if number == 3:
                        others_came.set()
                    assert (await future).result == number

        def begin(first: int, last: int) -> None:
            clients.extend(loop.create_task(client(number)) for number in range(first, last))

        begin(0, 2)
        while len(clients) < 4:
            await asyncio.sleep(0)
        await asyncio.gather(*clients)
        assert await dispatcher.close(FAR)

    asyncio.run(serve())
    assert sizes == [2, *[4] * 9, 2]
