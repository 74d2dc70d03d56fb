import asyncio
import time

import pytest

from app.errors import ClientGone, DeadlineExceeded
from app.patience import Patience

FAR = 60.0


async def never() -> None:
    await asyncio.Event().wait()


def test_what_ends_in_time_is_left_alone() -> None:
    async def scenario() -> int:
        async with Patience(time.monotonic() + FAR, never):
            return await asyncio.sleep(0, 7)

    assert asyncio.run(scenario()) == 7


def test_a_request_that_has_expired_is_not_begun() -> None:
    async def scenario() -> None:
        async with Patience(time.monotonic(), never):
            raise AssertionError("begun")

    with pytest.raises(DeadlineExceeded):
        asyncio.run(scenario())


def test_the_deadline_ends_any_wait() -> None:
    async def scenario() -> None:
        async with Patience(time.monotonic() + 0.01, never):
            await never()

    with pytest.raises(DeadlineExceeded):
        asyncio.run(scenario())


def test_a_client_that_goes_ends_any_wait() -> None:
    async def scenario() -> None:
        gone = asyncio.Event()
        async with Patience(time.monotonic() + FAR, gone.wait):
            gone.set()
            await never()

    with pytest.raises(ClientGone):
        asyncio.run(scenario())


def test_an_error_of_the_work_stays_that_error() -> None:
    async def scenario() -> None:
        async with Patience(time.monotonic() + FAR, never):
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(scenario())


def test_a_cancellation_by_others_stays_one() -> None:
    async def work(begun: asyncio.Event) -> None:
        async with Patience(time.monotonic() + FAR, never):
            begun.set()
            await never()

    async def scenario() -> None:
        begun = asyncio.Event()
        task = asyncio.create_task(work(begun))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_nobody_listens_any_more_afterwards() -> None:
    async def scenario() -> None:
        listening = asyncio.Event()

        async def gone() -> None:
            listening.set()
            await never()

        async with Patience(time.monotonic() + FAR, gone):
            await listening.wait()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())
