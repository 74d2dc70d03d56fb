import pytest

from app.budget import ByteBudget, ByteHold
from app.errors import QueueFull


def test_what_is_held_is_counted_and_given_back() -> None:
    changes: list[int] = []
    budget = ByteBudget(100, changes.append)
    with ByteHold(budget) as one, ByteHold(budget) as other:
        one.add(60)
        other.add(40)
        assert budget.held_bytes == 100
        one.give_back(10)
        other.add(10)
    assert budget.held_bytes == 0
    assert changes == [60, 40, -10, 10, -50, -50]


def test_beyond_the_limit_nothing_is_held_and_the_client_is_told_when_to_return() -> None:
    budget = ByteBudget(100)
    with ByteHold(budget) as hold:
        hold.add(60)
        with pytest.raises(QueueFull) as refused:
            hold.add(41)
        assert refused.value.headers == {"Retry-After": "1"}
        assert budget.held_bytes == 60
        hold.add(40)


def test_an_announcement_holds_nothing_and_is_refused_where_it_does_not_fit() -> None:
    budget = ByteBudget(100)
    with ByteHold(budget) as slow, ByteHold(budget) as quick:
        slow.expect(100)
        quick.add(100)
        with pytest.raises(QueueFull):
            slow.expect(1)


def test_a_failure_gives_everything_back() -> None:
    budget = ByteBudget(100)
    with pytest.raises(ZeroDivisionError), ByteHold(budget) as hold:
        hold.add(1)
        hold.add(1 // 0)
    assert budget.held_bytes == 0
