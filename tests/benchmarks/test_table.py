"""The figures that follow from measurements, and how they are written."""

import math

import pytest

from benchmarks.limit import Limit
from benchmarks.measurement import Measurement
from benchmarks.results import Point, Results
from benchmarks.table import broken_lines, load_share, table_lines
from benchmarks.targets import ratio_lines, target_lines
from benchmarks.workloads import WORKLOADS

PNG = tuple(workload for workload in WORKLOADS if workload.name == "png")


def measurement(rate: int, latency_s: float = 0.01, errors: int = 0) -> Measurement:
    latencies = (*[latency_s] * (rate - rate // 50), *[4 * latency_s] * (rate // 50))
    return Measurement(1.0, latencies, errors, load_share=0.125)


@pytest.fixture
def results() -> Results:
    """Two rounds; in the second everything is half as fast."""
    results = Results()
    results.limits["png"] = {
        n: Limit(0.002 * n, 0.002 * n, 0.001 * n, 0.004 * n, []) for n in (1, 2)
    }
    for server, rate in (("floor", 1000), ("limbeck", 450), ("plain", 100)):
        for body in ("raw", "multipart"):
            if server == "plain" and body == "raw":
                continue
            for connections in (1, 32):
                point = Point("png", server, body, connections)
                results.loads[point] = {n: measurement(rate // n, 0.002 * n) for n in (1, 2)}
    results.memory_mib["limbeck"] = {1: 100, 2: 110}
    results.ready_s["limbeck"] = {1: 1.5, 2: 3.0}
    results.failures["litserve"] = "not installed"
    point = Point("png", "limbeck", "raw", 32)
    results.beside_broken[point] = {1: measurement(300), 2: measurement(290, errors=10)}
    return results


def test_the_ideal_is_the_loop_and_the_floor_together(results: Results) -> None:
    point = Point("png", "limbeck", "raw", 32)
    assert results.ideal_rate(point, 1) == pytest.approx(500)  # 1 ms + 1 ms
    assert results.ideal_rate(point, 2) == pytest.approx(250)
    assert results.ideal_latency_s(point, 1) == pytest.approx(0.004)  # 2 ms + 2 ms


def test_what_was_not_measured_is_no_number(results: Results) -> None:
    for point in (Point("photo", "limbeck", "raw", 32), Point("png", "limbeck", "raw", 8)):
        assert math.isnan(results.rate(point, 1))
        assert math.isnan(results.ideal_rate(point, 1))
    assert math.isnan(results.rate(Point("png", "limbeck", "raw", 32), 3))


def test_a_line_of_the_table_holds_median_spread_and_errors(results: Results) -> None:
    lines = list(table_lines(results, PNG, (1, 32), (1, 2)))
    columns = lines[0].count("|")
    assert all(line.count("|") == columns for line in lines)
    assert "| 32x32 PNG | in process, batch 1 | 375 (250 to 500) | | | | |" in lines
    assert "| 32x32 PNG | LitServe | not installed | | | | |" in lines
    (raw,) = (line for line in lines if "Limbeck**, raw" in line)
    cell = "338 (225 to 450); 3, 12"
    assert raw == f"| 32x32 PNG | **Limbeck**, raw | {cell} | {cell} | 0 | 105 | 2.2 |"
    assert not any("Ray Serve" in line for line in lines)


def test_targets_are_met_missed_or_not_measured(results: Results) -> None:
    lines = list(target_lines(results, (1, 2)))
    assert "| png, raw, c=32: rate / ideal | ≥ 0.9 | 0.9 (0.9 to 0.9) | met |" in lines
    assert "| png, raw, c=64: rate / ideal | ≥ 0.9 | | not measured |" in lines
    assert "| png, raw, c=32: p99 / p50 | ≤ 2 | 4 (4 to 4) | **missed** |" in lines
    assert (
        "| png, raw, c=1: p50 / (in process + floor) | ≤ 1.25 | 0.5 (0.5 to 0.5) | met |" in lines
    )
    assert "| memory, MiB | ≤ 200 | 105 (100 to 110) | met |" in lines
    assert "| start to first answer, s | ≤ 2 | 2.25 (1.5 to 3) | **missed** |" in lines
    (lost,) = (line for line in lines if "lost beside broken images, raw" in line)
    assert lost.endswith("| 5 (0 to 10) | **missed** |")


def test_ratios_are_taken_within_a_round(results: Results) -> None:
    lines = list(ratio_lines(results, ["png"], (32,), (1, 2)))
    assert lines[-1] == "| png, c=32 | 0.90 | 0.90 | 4.50 |  |  |  |"


def test_lost_requests_are_counted_over_all_rounds(results: Results) -> None:
    lines = list(broken_lines(results, (1, 2)))
    assert lines[2] == "| **Limbeck**, raw | 295 (290 to 300) | 10 of 600 |"


def test_the_load_generators_share_is_the_highest(results: Results) -> None:
    assert load_share(results) == 0.125
    assert load_share(Results()) == 0
