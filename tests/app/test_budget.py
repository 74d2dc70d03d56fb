import pytest

from app.budget import ByteBudget, ByteHold
from app.errors import BodyTooLarge, QueueFull


def test_what_is_held_is_counted_and_given_back() -> None:
    changes: list[int] = []
    budget = ByteBudget(100, changes.append)
    with ByteHold(budget) as one, ByteHold(budget) as other:
        one.add(60)
        other.add(15)
        assert budget.held_bytes == 75
        one.give_back(10)
        other.add(10)
    assert budget.held_bytes == 0
    assert changes == [60, 15, -10, 10, -25, -50]


def test_beyond_the_limit_nothing_is_held_and_the_client_is_told_when_to_return() -> None:
    budget = ByteBudget(100)
    with ByteHold(budget) as hold, ByteHold(budget) as other:
        other.add(5)
        hold.add(60)
        with pytest.raises(QueueFull) as refused:
            hold.add(36)
        assert refused.value.headers == {"Retry-After": "1"}
        assert budget.held_bytes == 65
        hold.add(35)


def test_what_would_never_fit_is_not_to_be_tried_again() -> None:
    budget = ByteBudget(100)
    with ByteHold(budget) as hold:
        hold.add(60)
        with pytest.raises(BodyTooLarge, match="take 101 bytes; all requests together may hold 10"):
            hold.add(41)
        assert budget.held_bytes == 60


def test_an_announcement_holds_nothing_and_is_refused_where_it_does_not_fit() -> None:
    budget = ByteBudget(100)
    with ByteHold(budget) as slow, ByteHold(budget) as quick:
        slow.expect(100)
        quick.add(100)
        with pytest.raises(QueueFull):
            slow.expect(1)


def test_large_requests_leave_a_quarter_to_small_ones() -> None:
    budget = ByteBudget(2560)
    with ByteHold(budget) as one, ByteHold(budget) as other, ByteHold(budget) as small:
        one.add(1000)
        other.add(920)
        with pytest.raises(QueueFull):
            other.add(1)
        with pytest.raises(QueueFull):
            small.expect(11)
        for _ in range(10):
            small.add(1)
        with pytest.raises(QueueFull):
            small.add(1)


def test_a_large_request_may_take_all_that_small_ones_leave() -> None:
    budget = ByteBudget(2560)
    with ByteHold(budget) as small, ByteHold(budget) as large:
        small.add(10)
        large.add(2550)
        with pytest.raises(QueueFull):
            large.add(1)


def test_a_failure_gives_everything_back() -> None:
    budget = ByteBudget(100)
    with pytest.raises(ZeroDivisionError), ByteHold(budget) as hold:
        hold.add(1)
        hold.add(1 // 0)
    assert budget.held_bytes == 0
