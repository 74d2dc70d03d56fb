"""The results as one Markdown table."""

from collections.abc import Iterator, Sequence

from benchmarks.measurement import Measurement, Spread, spread
from benchmarks.results import Point, Results
from benchmarks.rows import SERVERS, Server
from benchmarks.workloads import Workload


def table_lines(
    results: Results,
    workloads: Sequence[Workload],
    concurrency: Sequence[int],
    rounds: Sequence[int],
) -> Iterator[str]:
    """One line for each workload and row; of each figure the median, of rates also the spread."""
    yield (
        "| workload | row | "
        + " | ".join(f"c={c}: requests/s; p50, p99 ms" for c in concurrency)
        + " | errors | MiB | ready s |"
    )
    yield "|---|---|" + "---:|" * (len(concurrency) + 3)
    for workload in workloads:
        yield from _limit_lines(results, workload, len(concurrency), rounds)
        for server in SERVERS:
            yield from _server_lines(results, workload, server, concurrency, rounds)


def _limit_lines(
    results: Results, workload: Workload, columns: int, rounds: Sequence[int]
) -> Iterator[str]:
    """What one core does without any server."""
    found = [
        results.limits[workload.name][n]
        for n in rounds
        if n in results.limits.get(workload.name, {})
    ]
    if not found:
        return
    for title, seconds in (
        ("batch 1", [limit.single_mean_s for limit in found]),
        ("batch 32", [limit.batched_s for limit in found]),
        ("batch 32, decoded at full scale", [limit.plain_batched_s for limit in found]),
    ):
        rate = ranged(spread([1 / s for s in seconds]))
        yield f"| {workload.title} | in process, {title} | {rate} |" + " |" * (columns + 2)


def _server_lines(
    results: Results,
    workload: Workload,
    server: Server,
    concurrency: Sequence[int],
    rounds: Sequence[int],
) -> Iterator[str]:
    if server.name in results.failures:
        reason = results.failures[server.name].replace("|", "/")
        yield f"| {workload.title} | {server.title} | {reason} |" + " |" * (len(concurrency) + 2)
        return
    for body in server.paths:
        points = [Point(workload.name, server.name, body, c) for c in concurrency]
        found = [[m for n in rounds if (m := results.load(p, n))] for p in points]
        if not any(found):
            continue
        cells = [_cell(measurements) for measurements in found]
        errors = sum(m.errors for measurements in found for m in measurements)
        memory = spread(list(results.memory_mib.get(server.name, {}).values()))
        ready = spread(list(results.ready_s.get(server.name, {}).values()))
        cells += [
            str(errors),
            f"{memory.median:.0f}" if memory else "",
            f"{ready.median:.1f}" if ready else "",
        ]
        yield f"| {workload.title} | {server.title}, {body} | " + " | ".join(cells) + " |"


def _cell(measurements: Sequence[Measurement]) -> str:
    rate = spread([m.rate for m in measurements])
    median = spread([m.percentile_ms(50) for m in measurements])
    tail = spread([m.percentile_ms(99) for m in measurements])
    if median is None or tail is None:
        return ranged(rate)
    return f"{ranged(rate)}; {_short(median.median)}, {_short(tail.median)}"


def ranged(figure: Spread | None) -> str:
    """The median, and the lowest and highest in brackets; nothing where there is nothing."""
    if figure is None:
        return ""
    return f"{_short(figure.median)} ({_short(figure.lowest)} to {_short(figure.highest)})"


def _short(value: float) -> str:
    """Three digits are all that a measurement like this is good for."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def broken_lines(results: Results, rounds: Sequence[int]) -> Iterator[str]:
    """What happens to good requests beside one client that sends broken images."""
    yield "| beside one client that sends broken images | good requests/s | good requests lost |"
    yield "|---|---:|---:|"
    titles = {server.name: server.title for server in SERVERS}
    for point, found in results.beside_broken.items():
        measurements = [found[n] for n in rounds if n in found]
        lost = sum(m.errors for m in measurements)
        whole = lost + sum(len(m.latencies_s) for m in measurements)
        rate = ranged(spread([m.rate for m in measurements]))
        yield f"| {titles[point.server]}, {point.body} | {rate} | {lost} of {whole} |"


def load_share(results: Results) -> float:
    """The most that the load generator used of its core in any measurement, 0 to 1."""
    return max(
        (m.load_share for found in results.loads.values() for m in found.values()), default=0.0
    )
