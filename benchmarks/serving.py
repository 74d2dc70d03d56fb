"""Serving speed: Limbeck, the limit, the HTTP floor and other servers, on one core, in one run.

Run `python -m benchmarks.serving`; benchmarks/README.md says how to read what it prints.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.load import Window
from benchmarks.machine import machine_lines
from benchmarks.results import Results
from benchmarks.rounds import Bench, Plan
from benchmarks.rows import LIMIT, SERVERS, installed, interpreter
from benchmarks.table import broken_lines, load_share, table_lines
from benchmarks.targets import ratio_lines, target_lines
from benchmarks.workloads import WORKLOADS

CACHE = Path("runs") / "benchmarks" / "models"


@dataclass(frozen=True, slots=True)
class Cores:
    """Where the server and the load generator run."""

    server: int
    load: int


def main() -> None:
    """The command."""
    options = _parser().parse_args()
    cores = _cores()
    plan = _plan(options)
    results = Results()
    for server in plan.servers:
        if server.package and installed(interpreter(server, plan.peers), server.package) is None:
            results.failures[server.name] = "not installed"
    seconds = plan.estimated_seconds(results)
    print(f"about {seconds / 60:.0f} minutes on a quiet machine", file=sys.stderr)
    before = os.getloadavg()[0]
    with TemporaryDirectory() as scratch:
        bench = Bench(plan, cores.server, Path(scratch), results)
        os.sched_setaffinity(0, {cores.load})
        for number in range(plan.rounds):
            bench.run_round(number)
    for line in _report(plan, results, before):
        print(line)


def _report(plan: Plan, results: Results, load_before: float) -> Iterator[str]:
    rounds = range(plan.rounds)
    names = [workload.name for workload in plan.workloads]
    yield from machine_lines(plan, load_before)
    yield ""
    yield from table_lines(results, plan.workloads, plan.concurrency, rounds)
    yield ""
    if results.beside_broken:
        yield from broken_lines(results, rounds)
        yield ""
    yield from ratio_lines(results, names, plan.concurrency, rounds)
    yield ""
    yield from target_lines(results, rounds)
    yield ""
    yield f"The load generator used at most {load_share(results):.0%} of its core."


def _parser() -> argparse.ArgumentParser:
    names = [LIMIT, *(server.name for server in SERVERS)]
    parser = argparse.ArgumentParser("benchmarks.serving", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="repetitions, interleaved")
    parser.add_argument("--seconds", type=float, default=5.0, help="of one measurement")
    parser.add_argument("--concurrency", type=_integers, default=(1, 8, 32, 64))
    parser.add_argument("--rows", type=_names(names), default=names, help=",".join(names))
    parser.add_argument(
        "--workloads",
        type=_names([workload.name for workload in WORKLOADS]),
        default=[workload.name for workload in WORKLOADS],
        help=",".join(workload.name for workload in WORKLOADS),
    )
    parser.add_argument(
        "--broken",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also measure beside one client that sends broken images",
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short round: whether it works, not how fast"
    )
    parser.add_argument(
        "--models", type=Path, default=Path("models"), help="for the workload digit"
    )
    parser.add_argument(
        "--peers", default=sys.executable, help="the Python that has the other servers"
    )
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    quick: bool = options.quick
    return Plan(
        servers=tuple(server for server in SERVERS if server.name in options.rows),
        with_limit=LIMIT in options.rows,
        workloads=tuple(w for w in WORKLOADS if w.name in options.workloads),
        concurrency=options.concurrency,
        rounds=1 if quick else options.rounds,
        window=Window(1.0 if quick else options.seconds),
        with_broken=options.broken,
        models_dir=options.models,
        cache=CACHE,
        peers=options.peers,
    )


def _cores() -> Cores:
    """The first two cores that this process may use.

    Raises:
        SystemExit: there is one only.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("needs two cores: one for the server, one for the load generator")
    return Cores(server=cores[0], load=cores[1])


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    """Reads some of these names, separated by commas."""

    def read(text: str) -> list[str]:
        chosen = text.split(",")
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(known)}")
        return chosen

    return read


if __name__ == "__main__":
    main()
