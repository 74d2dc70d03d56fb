import asyncio
import time
from collections.abc import Callable, Sequence

from app.batching import Dispatcher
from app.lane import Lane, Limits
from app.pause import Pause
from app.stop import Stop
from app.tickets import Answer

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


def test_it_ends_when_all_have_come() -> None:
    assert lasted_s((0.0002, 1), (0.0004, 2), expected=3) < 0.01


def test_it_ends_when_nobody_comes() -> None:
    assert 0.0009 < lasted_s(expected=5) < 0.5


def test_it_goes_on_while_the_loop_is_busy_but_not_for_ever() -> None:
    def work() -> None:
        time.sleep(0.0005)
        asyncio.get_running_loop().call_soon(work)

    assert 0.015 < lasted_s(expected=1000, beside=work) < 0.3


def test_there_is_none_where_none_is_wanted() -> None:
    assert lasted_s(expected=5, wanted=False) < 0.01


def test_those_who_ask_again_are_computed_together() -> None:
    """Half the clients are late once; without the pause there would be two groups for ever."""

    def batches(*, pauses: bool) -> list[int]:
        sizes: list[int] = []

        def run(items: Sequence[int], stop: Stop) -> Sequence[int]:
            sizes.append(len(items))
            time.sleep(0.005)
            return items

        async def serve() -> None:
            dispatcher = Dispatcher(pauses=pauses)
            lane: Lane[int, int] = Lane(dispatcher, run, Limits(8, 64))
            dispatcher.add(lane)
            dispatcher.start()

            async def client(number: int) -> None:
                await asyncio.sleep(0.003 * (number % 2))
                for _ in range(12):
                    with lane.reserve(1) as reservation:
                        (future,) = reservation.submit([number], time.monotonic() + FAR)
                        answer: Answer[int] = await future
                        assert answer.result == number

            await asyncio.gather(*(client(number) for number in range(8)))
            assert await dispatcher.close(FAR)

        asyncio.run(serve())
        return sizes

    assert max(batches(pauses=False)[:-4]) < 8
    assert batches(pauses=True).count(8) >= 8
