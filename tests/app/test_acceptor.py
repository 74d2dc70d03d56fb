import asyncio
import socket
from contextlib import ExitStack
from pathlib import Path

from app.acceptor import Acceptor, Shares
from app.listener import bind


def test_the_excess_is_over_the_worker_that_has_least(tmp_path: Path) -> None:
    shares = Shares(tmp_path / "connections")
    others = Shares(tmp_path / "connections")
    shares.tell(0, 7)
    others.tell(1, 3)
    others.tell(2, 5)
    assert [shares.excess(place, places=8) for place in range(3)] == [4, 0, 2]


def test_a_worker_that_has_ended_is_nobody_to_wait_for(tmp_path: Path) -> None:
    shares = Shares(tmp_path / "connections")
    shares.tell(0, 7)
    shares.tell(1, 0)
    shares.forget(1)
    assert shares.excess(0, places=4) == 0


def test_a_worker_that_is_alone_takes_many_newcomers_in_one_turn() -> None:
    async def scenario() -> None:
        came: list[asyncio.Protocol] = []
        all_there = asyncio.Event()

        class Newcomer(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                came.append(self)
                if len(came) == 20:
                    all_there.set()

        with bind("127.0.0.1", 0) as sock, ExitStack() as clients:
            acceptor = Acceptor(sock, Newcomer, None)
            acceptor.start(100)
            for _ in range(20):
                clients.enter_context(socket.create_connection(sock.getsockname()))
            turns = 0
            while not all_there.is_set():
                turns += 1
                await asyncio.sleep(0)
            assert turns < 15  # one a turn would take 20
            acceptor.close()
            await acceptor.wait_closed()

    asyncio.run(scenario())
