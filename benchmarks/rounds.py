"""One round measures everything once; several rounds are interleaved by being run in turn."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bundles import NAME, alone, newest, random_bundle
from benchmarks.exchange import exchange
from benchmarks.limit import Limit
from benchmarks.load import Stream, Window, run_load
from benchmarks.measurement import Measurement
from benchmarks.processes import ROOT, ServerFailed, ServerProcess, free_port, pinned
from benchmarks.results import Point, Results
from benchmarks.rows import Server, environment, interpreter
from benchmarks.servers.model import Answer
from benchmarks.workloads import Body, Workload, broken_files, http_request

_BROKEN_WORKLOAD = "png"
_BROKEN_CONNECTIONS = 32
# How far two servers' float32 arithmetic may lie apart, in probability.
_TOLERANCE = 0.005


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured.

    Attributes:
        servers: rows of the table.
        with_limit: also the loop without a server.
        workloads: what is sent.
        concurrency: numbers of connections.
        rounds: how often everything is measured.
        window: of one measurement.
        with_broken: also beside one client that sends broken images.
        models_dir: the project's bundles.
        cache: where the bundle of random weights is kept.
        peers: the Python that has the other servers.
    """

    servers: tuple[Server, ...]
    with_limit: bool
    workloads: tuple[Workload, ...]
    concurrency: tuple[int, ...]
    rounds: int
    window: Window
    with_broken: bool
    models_dir: Path
    cache: Path
    peers: str

    def estimated_seconds(self, results: Results) -> float:
        """By arithmetic; the first answers of slow servers and their starts are guessed."""
        servers = [server for server in self.servers if server.name not in results.failures]
        bundles = {workload.bundle for workload in self.workloads}
        window_s = self.window.seconds + 1
        loads = len(self.workloads) * len(self.concurrency) * sum(len(s.paths) for s in servers)
        limits = 3 * len(self.workloads) if self.with_limit else 0
        broken = sum(len(s.paths) for s in servers) if self.with_broken else 0
        starts = len(bundles) * sum(10 if s.package else 3 for s in servers)
        return self.rounds * ((loads + limits + broken) * window_s + starts)


class Bench:
    """Runs the rounds of a plan.

    Args:
        plan: what is measured.
        core: the one that servers run on.
        scratch: a folder for logs and files.
        results: where everything goes.
    """

    def __init__(self, plan: Plan, core: int, scratch: Path, results: Results) -> None:
        self._plan = plan
        self._core = core
        self._scratch = scratch
        self._results = results
        self._files = {workload.name: workload.make() for workload in plan.workloads}
        self._bundles: dict[str, Path] = {}
        for name in dict.fromkeys(workload.bundle for workload in plan.workloads):
            bundle = random_bundle(plan.cache) if name == NAME else newest(plan.models_dir, name)
            if bundle is None:
                _say(f"no bundle {name} in {plan.models_dir}: its workloads are left out")
            else:
                self._bundles[name] = bundle

    def run_round(self, number: int) -> None:
        """Measure everything once."""
        for name, bundle in self._bundles.items():
            workloads = [w for w in self._plan.workloads if w.bundle == name]
            if self._plan.with_limit:
                for workload in workloads:
                    _say(f"round {number + 1}, {name}: the limit, {workload.name}")
                    limit = self._limit(bundle, workload)
                    self._results.limits.setdefault(workload.name, {})[number] = limit
            for server in self._plan.servers:
                if server.name in self._results.failures:
                    continue
                _say(f"round {number + 1}, {name}: {server.name}")
                try:
                    self._serve(server, bundle, workloads, number)
                except ServerFailed as error:
                    self._results.failures[server.name] = str(error)
                    _say(f"{server.name}: {error}")

    def _limit(self, bundle: Path, workload: Workload) -> Limit:
        """Measured by a process on the servers' core."""
        paths = []
        for index, content in enumerate(self._files[workload.name]):
            paths.append(self._scratch / f"{workload.name}-{index}")
            paths[-1].write_bytes(content)
        command = [sys.executable, "-m", "benchmarks.limit", "--bundle", str(bundle.resolve())]
        command += ["--seconds", str(self._plan.window.seconds), *map(str, paths)]
        with pinned(self._core):
            finished = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
        return Limit(**json.loads(finished.stdout))

    def _serve(
        self, server: Server, bundle: Path, workloads: Sequence[Workload], number: int
    ) -> None:
        """Start a server, put every load on it, stop it."""
        port = free_port()
        command = server.command(interpreter(server, self._plan.peers), port)
        log = self._scratch / f"{server.name}.log"
        with (
            alone(bundle) as models_dir,
            ServerProcess(
                command, environment(server, port, bundle, models_dir), self._core, log
            ) as process,
        ):
            body = next(iter(server.paths))
            first = self._requests(server, workloads[0], body)[0]
            ready_s = process.wait_until_ready(port, first)
            if bundle == self._bundles.get(NAME, bundle):
                self._results.ready_s.setdefault(server.name, {})[number] = ready_s
            for workload in workloads:
                for body in server.paths:
                    self._check_answers(server, workload, body, port, number)
                    self._load(server, workload, body, port, number)
                    self._weigh(server, process, number)
            if self._plan.with_broken and server.computes and workloads[0].name == _BROKEN_WORKLOAD:
                for body in server.paths:
                    self._load_beside_broken(server, workloads[0], body, port, number)

    def _load(self, server: Server, workload: Workload, body: Body, port: int, number: int) -> None:
        requests = self._requests(server, workload, body)
        for connections in self._plan.concurrency:
            (found,) = run_load(port, [Stream(requests, connections)], self._plan.window)
            point = Point(workload.name, server.name, body, connections)
            self._results.loads.setdefault(point, {})[number] = found
            _say(f"  {workload.name}, {body}, c={connections}: {_brief(found)}")

    def _load_beside_broken(
        self, server: Server, workload: Workload, body: Body, port: int, number: int
    ) -> None:
        good = Stream(self._requests(server, workload, body), _BROKEN_CONNECTIONS)
        files = broken_files(self._files[workload.name])
        path = server.paths[body]
        broken = Stream([http_request(path, f, workload.media_type, body) for f in files], 1)
        found, _ = run_load(port, [good, broken], self._plan.window)
        point = Point(workload.name, server.name, body, _BROKEN_CONNECTIONS)
        self._results.beside_broken.setdefault(point, {})[number] = found
        _say(f"  beside broken images, {body}: {_brief(found)}")

    def _weigh(self, server: Server, process: ServerProcess, number: int) -> None:
        heaviest = self._results.memory_mib.setdefault(server.name, {})
        heaviest[number] = max(heaviest.get(number, 0.0), process.memory_bytes() / 2**20)

    def _requests(self, server: Server, workload: Workload, body: Body) -> list[bytes]:
        files = self._files[workload.name]
        path = server.paths[body]
        return [http_request(path, file, workload.media_type, body) for file in files]

    def _check_answers(
        self, server: Server, workload: Workload, body: Body, port: int, number: int
    ) -> None:
        """Refuse a server that is fast because it computes something else.

        Raises:
            ServerFailed: an answer is not the one of the loop without a server.
        """
        limit = self._results.limits.get(workload.name, {}).get(number)
        if limit is None or not server.computes:
            return
        requests = self._requests(server, workload, body)
        for request, expected in zip(requests, limit.answers, strict=True):
            try:
                status, content = exchange(port, request)
            except OSError as error:
                raise ServerFailed(f"does not answer: {error}") from error
            if status != 200:
                raise ServerFailed(f"answers {status}: {content[:200]!r}")
            if workload.exact and not _agrees(content, expected):
                raise ServerFailed(f"answers {content[:200]!r}, wanted is {expected}")


def _agrees(content: bytes, expected: Answer) -> bool:
    """Whether an answer, or the only one of a list, has the expected label and confidence."""
    answer = json.loads(content)
    answer = answer[0] if isinstance(answer, list) else answer
    apart = abs(answer["confidence"] - float(expected["confidence"]))
    return bool(answer["label"] == expected["label"] and apart <= _TOLERANCE)


def _brief(found: Measurement) -> str:
    return (
        f"{found.rate:.1f}/s, p50 {found.percentile_ms(50):.1f} ms, "
        f"p99 {found.percentile_ms(99):.1f} ms, {found.errors} errors, "
        f"load generator {found.load_share:.0%}"
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
