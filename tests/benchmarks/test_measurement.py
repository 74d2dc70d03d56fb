import math

import pytest

from benchmarks.measurement import Measurement, Spread, percentile, spread


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([7.0], 50, 7.0),
        ([7.0], 99, 7.0),
        ([1.0, 2.0], 50, 1.0),
        ([1.0, 2.0, 3.0], 50, 2.0),
        ([float(n) for n in range(1, 101)], 50, 50.0),
        ([float(n) for n in range(1, 101)], 99, 99.0),
        ([float(n) for n in range(1, 101)], 100, 100.0),
        ([float(n) for n in range(1, 11)], 99, 10.0),
    ],
)
def test_a_percentile_is_the_nearest_rank(
    values: list[float], percent: float, expected: float
) -> None:
    assert percentile(values, percent) == expected


def test_nothing_has_no_percentile() -> None:
    assert math.isnan(percentile([], 50))


def test_the_rate_counts_good_answers_and_percentiles_are_milliseconds() -> None:
    found = Measurement(seconds=2.0, latencies_s=(0.01, 0.02, 0.5), errors=4, load_share=0.1)
    assert found.rate == 1.5
    assert found.percentile_ms(50) == 20.0
    assert found.percentile_ms(99) == 500.0


def test_a_spread_leaves_out_what_was_not_measured() -> None:
    assert spread([3.0, math.nan, 1.0, 10.0]) == Spread(3.0, 1.0, 10.0)
    assert spread([math.nan]) is None
    assert spread([]) is None
