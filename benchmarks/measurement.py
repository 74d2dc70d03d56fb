"""What a measurement found, and what several of them say together."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measurement:
    """One server under one load for one window of time.

    Attributes:
        seconds: length of the window.
        latencies_s: of every request answered with 200 within the window, ascending.
        errors: requests answered otherwise or not at all.
        load_share: processor seconds of the load generator per second of the window.
    """

    seconds: float
    latencies_s: tuple[float, ...]
    errors: int
    load_share: float

    @property
    def rate(self) -> float:
        """Good answers per second."""
        return len(self.latencies_s) / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """Milliseconds that `percent` of the good answers took at most; NaN without any."""
        return percentile(self.latencies_s, percent) * 1000


def percentile(ascending: Sequence[float], percent: float) -> float:
    """The smallest of the values that `percent` of them do not exceed (nearest rank)."""
    if not ascending:
        return math.nan
    return ascending[max(0, math.ceil(len(ascending) * percent / 100) - 1)]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of one figure over all rounds, and how far the rounds lie apart."""

    median: float
    lowest: float
    highest: float


def spread(values: Sequence[float]) -> Spread | None:
    """Of the figures that are numbers; None if there is none."""
    numbers = [value for value in values if not math.isnan(value)]
    if not numbers:
        return None
    return Spread(statistics.median(numbers), min(numbers), max(numbers))
