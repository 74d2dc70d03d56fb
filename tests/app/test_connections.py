"""Who keeps a place when there are too few; `tests/e2e/test_slow_clients.py` has the rest."""

import asyncio

from app.connections import ConnectionLimits, Connections, Stage


class Client:
    """A connection that waits for something, and remembers that it was ended."""

    def __init__(self, stage: Stage, lag_s: float) -> None:
        self.stage, self.lag_s = stage, lag_s
        self.ended = False

    def lag(self, now: float) -> tuple[Stage, float]:
        return self.stage, self.lag_s

    def expire(self, stage: Stage) -> None:
        self.ended = True


def admitted(newcomer: Client, *others: Client) -> bool:
    """Whether there is a place beside others that fill all of them."""

    async def admit() -> bool:
        connections = Connections(ConnectionLimits(connections=len(others)))
        assert all(connections.admit(other) for other in others)
        return connections.admit(newcomer)

    return asyncio.run(admit())


def test_who_lags_most_makes_room() -> None:
    others = [Client(Stage.HEAD, 2), Client(Stage.BODY, 5), Client(Stage.IDLE, 3)]
    assert admitted(Client(Stage.HEAD, 0), *others)
    assert [other.ended for other in others] == [False, True, False]


def test_nobody_who_waits_for_us_or_has_only_just_come_makes_room() -> None:
    others = [Client(Stage.ANSWER, 100), Client(Stage.HEAD, 0.5), Client(Stage.BODY, -10)]
    assert not admitted(Client(Stage.HEAD, 0), *others)
    assert not any(other.ended for other in others)


def test_the_number_of_connections_is_told() -> None:
    counts: list[int] = []

    async def come_and_go() -> None:
        connections = Connections(on_count=counts.append)
        client = Client(Stage.IDLE, 0)
        connections.admit(client)
        connections.remove(client)

    asyncio.run(come_and_go())
    assert counts == [1, 0]
