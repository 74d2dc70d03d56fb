"""What Limbeck is to reach, as ratios within one run."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.measurement import spread
from benchmarks.results import Point, Results
from benchmarks.rows import LIMBECK, SERVERS
from benchmarks.workloads import Body

Figure = Callable[[int], float]


@dataclass(frozen=True, slots=True)
class Target:
    """One figure and its bound.

    Attributes:
        title: what it is.
        bound: what the median over the rounds is held against.
        at_least: whether the bound is from below.
        figure: the figure of one round; NaN if it was not measured.
    """

    title: str
    bound: float
    at_least: bool
    figure: Figure


def targets(results: Results) -> list[Target]:
    """All of them."""
    bodies: tuple[tuple[Body, float], ...] = (("raw", 0.90), ("multipart", 0.85))
    return [
        *(
            _of_ideal(results, Point("png", LIMBECK, body, connections), bound)
            for body, bound in bodies
            for connections in (32, 64)
        ),
        _latency(results, Point("png", LIMBECK, "raw", 1), 1.25),
        _tail(results, Point("png", LIMBECK, "raw", 32), 2.0),
        _of_ideal(results, Point("jpeg", LIMBECK, "raw", 32), 0.85),
        _of_ideal(results, Point("digit", LIMBECK, "raw", 32), 0.80),
        Target(
            "memory, MiB",
            200,
            False,
            lambda n: results.memory_mib.get(LIMBECK, {}).get(n, math.nan),
        ),
        Target(
            "start to first answer, s",
            2.0,
            False,
            lambda n: results.ready_s.get(LIMBECK, {}).get(n, math.nan),
        ),
        *(
            Target(
                f"good requests lost beside broken images, {body}",
                0,
                False,
                partial(_lost, results, body),
            )
            for body, _ in bodies
        ),
    ]


def _of_ideal(results: Results, point: Point, bound: float) -> Target:
    def figure(round_number: int) -> float:
        return results.rate(point, round_number) / results.ideal_rate(point, round_number)

    return Target(f"{_place(point)}: rate / ideal", bound, True, figure)


def _latency(results: Results, point: Point, bound: float) -> Target:
    def figure(round_number: int) -> float:
        ideal_s = results.ideal_latency_s(point, round_number)
        return results.latency_s(point, 50, round_number) / ideal_s

    return Target(f"{_place(point)}: p50 / (in process + floor)", bound, False, figure)


def _tail(results: Results, point: Point, bound: float) -> Target:
    def figure(round_number: int) -> float:
        median_s = results.latency_s(point, 50, round_number)
        return results.latency_s(point, 99, round_number) / median_s

    return Target(f"{_place(point)}: p99 / p50", bound, False, figure)


def _lost(results: Results, body: Body, round_number: int) -> float:
    found = [
        rounds[round_number].errors
        for point, rounds in results.beside_broken.items()
        if point.server == LIMBECK and point.body == body and round_number in rounds
    ]
    return sum(found) if found else math.nan


def _place(point: Point) -> str:
    return f"{point.workload}, {point.body}, c={point.connections}"


def target_lines(results: Results, rounds: Sequence[int]) -> Iterator[str]:
    """The targets as a Markdown table: median, spread, met or missed."""
    yield "| target | bound | found | |"
    yield "|---|---:|---:|---|"
    for target in targets(results):
        found = spread([target.figure(n) for n in rounds])
        sign = "≥" if target.at_least else "≤"
        bound = f"{sign} {target.bound:g}"
        if found is None:
            yield f"| {target.title} | {bound} | | not measured |"
            continue
        met = found.median >= target.bound if target.at_least else found.median <= target.bound
        figures = f"{found.median:.3g} ({found.lowest:.3g} to {found.highest:.3g})"
        yield f"| {target.title} | {bound} | {figures} | {'met' if met else '**missed**'} |"


def ratio_lines(
    results: Results, workloads: Sequence[str], concurrency: Sequence[int], rounds: Sequence[int]
) -> Iterator[str]:
    """Limbeck's rate in terms of the ideal's and of each peer's, as a Markdown table."""
    peers = [s for s in SERVERS if s.name not in {"floor", LIMBECK}]
    titles = ["ideal, raw", "ideal, multipart", *(peer.title for peer in peers)]
    yield "| Limbeck's rate as a multiple of | " + " | ".join(titles) + " |"
    yield "|---" + "|---:" * len(titles) + "|"
    for workload in workloads:
        for connections in concurrency:
            cells = []
            for body in ("raw", "multipart"):
                own = Point(workload, LIMBECK, body, connections)
                cells.append(
                    _ratio([(results.rate(own, n), results.ideal_rate(own, n)) for n in rounds])
                )
            for peer in peers:
                (body,) = peer.paths
                own = Point(workload, LIMBECK, body, connections)
                other = own._replace(server=peer.name)
                cells.append(
                    _ratio([(results.rate(own, n), results.rate(other, n)) for n in rounds])
                )
            yield f"| {workload}, c={connections} | " + " | ".join(cells) + " |"


def _ratio(pairs: Sequence[tuple[float, float]]) -> str:
    """The median of the rounds' ratios; they are taken within a round, where noise is shared."""
    found = spread([own / other if other else math.nan for own, other in pairs])
    return "" if found is None else f"{found.median:.2f}"
