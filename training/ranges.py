"""The numbers that a setting or an argument may have."""

import sys
from argparse import ArgumentTypeError
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class Range:
    """Finite numbers from the least to the most.

    Attributes:
        least: the lower end.
        most: the upper end, which belongs to it.
        above: whether the lower end does not belong to it.
    """

    least: float
    most: float = sys.float_info.max
    above: bool = False

    def __contains__(self, number: float) -> bool:
        reached = number > self.least if self.above else number >= self.least
        return reached and number <= self.most

    def __str__(self) -> str:
        low = f"{'above' if self.above else 'at least'} {self.least}"
        return low if self.most == sys.float_info.max else f"{low} and at most {self.most}"


COUNT = Range(1)
NOT_NEGATIVE = Range(0)
POSITIVE = Range(0, above=True)
SHARE = Range(0, 1)
SEED = Range(0, 2**32 - 1)  # what every generator takes


def argument(kind: Callable[[str], _Number], allowed: Range) -> Callable[[str], _Number]:
    """What reads a number of the range for argparse."""

    def read(text: str) -> _Number:
        try:
            number = kind(text)
        except ValueError:
            raise ArgumentTypeError(f"must be a number, got {text!r}") from None
        if number not in allowed:
            raise ArgumentTypeError(f"must be {allowed}, got {text}")
        return number

    return read
