"""What a server does with several times what it can do.

Run `python -m benchmarks.overload`; it prints the capacity, and the goodput at 4 times of it.
"""

import argparse
import asyncio
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from benchmarks.bundles import random_bundle
from benchmarks.exchange import Connection
from benchmarks.limbeck import Limbeck, bundle_named, limbeck
from benchmarks.load import Stream, Window, run_load
from benchmarks.measurement import percentile
from benchmarks.pace import Offered, offer
from benchmarks.serving import CACHE
from benchmarks.workloads import WORKLOADS, http_request

_PROBE_EVERY_S = 0.05
_WEIGH_EVERY_S = 0.5  # it looks through all of /proc
_CONNECTIONS = 32
_PATH = "/classify?purify=true"
PROBES = ("/health/ready", "/metrics")


@dataclass(slots=True)
class Overload:
    """What was measured.

    Attributes:
        capacity: good answers a second of a server that is busy and not overloaded.
        factor: how many times of it was offered.
        offered: what came of it.
        probes_s: path -> seconds of each answer meanwhile.
        probe_failures: answers to probes that were no 200, or none.
        before_mib: memory before the overload.
        peak_mib: the most memory during it.
    """

    capacity: float
    factor: float
    offered: Offered
    probes_s: dict[str, list[float]] = field(default_factory=dict)
    probe_failures: int = 0
    before_mib: float = 0.0
    peak_mib: float = 0.0

    @property
    def goodput(self) -> float:
        """Good answers a second under overload."""
        return len(self.offered.latencies_s.get(200, ())) / self.offered.seconds

    def percentile_ms(self, status: int, percent: float) -> float:
        """Milliseconds of the answers with a status."""
        return percentile(sorted(self.offered.latencies_s.get(status, ())), percent) * 1000

    def probe_ms(self, path: str, percent: float) -> float:
        """Milliseconds of the answers to a probe."""
        return percentile(sorted(self.probes_s.get(path, ())), percent) * 1000


def measure(server: Limbeck, requests: list[bytes], *, seconds: float, factor: float) -> Overload:
    """The capacity of a running server, then its behaviour at `factor` times of it."""
    (busy,) = run_load(server.port, [Stream(requests, _CONNECTIONS)], Window(seconds))
    result = Overload(busy.rate, factor, Offered(), before_mib=server.memory_mib())
    result.peak_mib = result.before_mib
    over = threading.Event()
    # Threads, which take their own times: what the load's event loop is late must not count.
    with ThreadPoolExecutor(1 + len(PROBES)) as threads:
        watching = [threads.submit(_probe, server, path, result, over) for path in PROBES]
        watching.append(threads.submit(_weigh, server, result, over))
        try:
            rate = result.capacity * factor
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                result.offered = runner.run(
                    offer(server.port, requests, rate=rate, seconds=seconds)
                )
        finally:
            over.set()
        for watcher in watching:
            watcher.result()
    return result


def _probe(server: Limbeck, path: str, result: Overload, over: threading.Event) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    times = result.probes_s.setdefault(path, [])
    with Connection(server.port) as connection:
        while not over.wait(_PROBE_EVERY_S):
            started = time.perf_counter()
            try:
                status, _ = connection.exchange(request)
            except OSError:
                status = 0
            if status == 200:
                times.append(time.perf_counter() - started)
            else:
                result.probe_failures += 1


def _weigh(server: Limbeck, result: Overload, over: threading.Event) -> None:
    while not over.wait(_WEIGH_EVERY_S):
        result.peak_mib = max(result.peak_mib, server.memory_mib())


def report(result: Overload) -> Iterator[str]:
    """What was measured, beside what is wanted."""
    offered = result.offered
    counts = ", ".join(f"{s}: {len(found):,}" for s, found in sorted(offered.latencies_s.items()))
    yield "| | measured | wanted |"
    yield "|---|---:|---:|"
    yield f"| capacity, answers/s at c={_CONNECTIONS} | {result.capacity:,.0f} | |"
    yield f"| offered, requests/s | {result.capacity * result.factor:,.0f} | |"
    yield (
        f"| goodput, answers/s | {result.goodput:,.0f} "
        f"({result.goodput / result.capacity:.0%} of the capacity) | > 90 % |"
    )
    yield f"| accepted, p50 and p99 ms | {_two(result, 200)} | within the deadline |"
    yield f"| refused (503), p50 and p99 ms | {_two(result, 503)} | < 10 |"
    for path in PROBES:
        count = len(result.probes_s.get(path, ()))
        yield f"| {path}, p99 and slowest of {count}, ms | {_probed(result, path)} | < 100 |"
    yield f"| slowest answer in the first second, ms | {offered.slowest_first_s * 1000:.0f} | |"
    yield f"| probes that failed | {result.probe_failures} | 0 |"
    yield f"| without an answer | {offered.lost} | 0 |"
    memory = f"{result.before_mib:.0f}, {result.peak_mib:.0f}"
    yield f"| memory before and at most, MiB | {memory} | flat |"
    yield ""
    yield f"Answers by status: {counts}. Held back for want of connections: {offered.held_back:,}."


def _two(result: Overload, status: int) -> str:
    return f"{result.percentile_ms(status, 50):.1f}, {result.percentile_ms(status, 99):.1f}"


def _probed(result: Overload, path: str) -> str:
    return f"{result.probe_ms(path, 99):.1f}, {result.probe_ms(path, 100):.1f}"


def run(arguments: list[str]) -> int:
    """The command."""
    workloads = {workload.name: workload for workload in WORKLOADS}
    parser = argparse.ArgumentParser("benchmarks.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each of the two loads")
    parser.add_argument("--factor", type=float, default=4.0, help="of the capacity")
    parser.add_argument("--workload", choices=sorted(workloads), default="png")
    parser.add_argument("--models", type=Path, default=Path("models"), help="for the digits")
    options = parser.parse_args(arguments)
    workload = workloads[options.workload]
    if workload.bundle == "random":
        bundle = random_bundle(CACHE)
    else:
        bundle = bundle_named(options.models, workload.bundle)
    requests = [http_request(_PATH, f, workload.media_type, "raw") for f in workload.make()]
    with limbeck(bundle, sys.executable) as server:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        result = measure(server, requests, seconds=options.seconds, factor=options.factor)
    print(f"{workload.title}, {options.seconds:g} s a load, one core for the server")
    print()
    print("\n".join(report(result)))
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
