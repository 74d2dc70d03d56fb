from argparse import ArgumentTypeError

import pytest

from training.ranges import COUNT, NOT_NEGATIVE, POSITIVE, SEED, SHARE, Range, argument


@pytest.mark.parametrize(
    ("allowed", "inside", "outside", "told"),
    [
        (COUNT, (1, 10**6), (0, -3), "at least 1"),
        (NOT_NEGATIVE, (0, 0.5), (-1e-9, float("inf")), "at least 0"),
        (POSITIVE, (1e-9, 1e9), (0, -1, float("nan"), float("inf")), "above 0"),
        (SHARE, (0, 0.5, 1), (-0.1, 1.1, float("nan")), "at least 0 and at most 1"),
        (SEED, (0, 2**32 - 1), (-1, 2**32), "at least 0 and at most 4294967295"),
    ],
)
def test_a_range_knows_its_numbers_and_says_what_it_is(
    allowed: Range, inside: tuple[float, ...], outside: tuple[float, ...], told: str
) -> None:
    assert all(number in allowed for number in inside)
    assert not any(number in allowed for number in outside)
    assert str(allowed) == told


def test_an_argument_is_a_number_of_its_range() -> None:
    read = argument(int, COUNT)
    assert read("7") == 7
    with pytest.raises(ArgumentTypeError, match="must be at least 1, got 0"):
        read("0")
    with pytest.raises(ArgumentTypeError, match=r"must be a number, got 'few'"):
        read("few")
