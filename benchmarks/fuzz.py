"""Mutated uploads against a real server: nothing may make it fail, wait or grow.

Run `make fuzz`, or `python -m benchmarks.fuzz --help`.
"""

import argparse
import itertools
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.exchange import Connection
from benchmarks.limbeck import Limbeck, bundle_named, limbeck
from benchmarks.mutation import seed_files, upload
from benchmarks.workloads import Body, http_request

MAX_SECONDS = 1.0
# Allocators keep what they once had; the first tenth of the uploads shows them their sizes.
WARM_UP = 0.1
MAX_GROWTH = 0.05
_CLIENTS = 4
_PATHS = ("/classify?detect=true", "/purify")


@dataclass(slots=True)
class Findings:
    """What the uploads met.

    Attributes:
        answers: (status, code) -> how many; the code of a good answer is empty.
        slowest_s: of all answers.
        bad: (number of the upload, what happened); they can be made again from it.
        warm_mib: memory after the warm-up.
        end_mib: memory after all.
    """

    answers: Counter[tuple[int, str]] = field(default_factory=Counter)
    slowest_s: float = 0.0
    bad: list[tuple[int, str]] = field(default_factory=list)
    warm_mib: float = 0.0
    end_mib: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, number: int, status: int, code: str, seconds: float) -> None:
        """Count one answer."""
        with self.lock:
            self.answers[status, code] += 1
            self.slowest_s = max(self.slowest_s, seconds)
            if status >= 500:
                self.bad.append((number, f"{status} {code}"))
            if seconds > MAX_SECONDS:
                self.bad.append((number, f"{seconds:.2f} s"))

    @property
    def growth(self) -> float:
        """Of the memory since the warm-up, as a share."""
        return self.end_mib / self.warm_mib - 1

    @property
    def passed(self) -> bool:
        """Whether there was nothing to find."""
        return not self.bad and self.growth <= MAX_GROWTH


def fuzz(server: Limbeck, uploads: int, seed: int, first: int = 0) -> Findings:
    """Send this many uploads over a few connections."""
    files, findings = seed_files(), Findings()
    warm = first + int(uploads * WARM_UP)
    for numbers in (range(first, warm), range(warm, first + uploads)):
        waiting = iter(numbers)
        lock = threading.Lock()

        def client(waiting: Iterator[int] = waiting, lock: threading.Lock = lock) -> None:
            with Connection(server.port) as connection:
                while True:
                    with lock:
                        number = next(waiting, None)
                    if number is None:
                        return
                    _send(connection, upload(files, seed, number), number, findings)

        with ThreadPoolExecutor(_CLIENTS) as threads:
            for done in [threads.submit(client) for _ in range(_CLIENTS)]:
                done.result()
        if numbers.stop == warm:
            findings.warm_mib = server.memory_mib()
    findings.end_mib = server.memory_mib()
    if not server.alive():
        findings.bad.append((first + uploads, "the server is not ready any more"))
    return findings


def _send(connection: Connection, content: bytes, number: int, findings: Findings) -> None:
    body: Body = "multipart" if number % 4 == 0 else "raw"
    path = _PATHS[number // 4 % len(_PATHS)]
    request = http_request(path, content, "image/png", body)
    started = time.perf_counter()
    try:
        status, answer = connection.exchange(request)
    except OSError as error:
        with findings.lock:
            findings.bad.append((number, str(error)))
        return
    code = "" if status == 200 else str(json.loads(answer)["code"])
    findings.note(number, status, code, time.perf_counter() - started)


def report(findings: Findings, seed: int) -> Iterator[str]:
    """The findings as a table."""
    total = sum(findings.answers.values())
    yield f"{total:,} uploads, seed {seed}"
    yield ""
    yield "| answer | uploads |"
    yield "|---|---:|"
    for (status, code), count in sorted(findings.answers.items()):
        yield f"| {status} {code} | {count:,} |"
    yield ""
    yield "| | found | allowed |"
    yield "|---|---:|---:|"
    yield f"| failed or too slow | {len(findings.bad)} | 0 |"
    yield f"| slowest answer | {findings.slowest_s * 1000:.0f} ms | {MAX_SECONDS * 1000:.0f} ms |"
    yield (
        f"| memory, MiB after {WARM_UP:.0%} and in the end | {findings.warm_mib:.1f}, "
        f"{findings.end_mib:.1f} ({findings.growth:+.1%}) | {MAX_GROWTH:+.0%} |"
    )
    for number, what in itertools.islice(findings.bad, 20):
        yield f"upload {number}: {what}"


def run(arguments: list[str]) -> int:
    """The command; 1 if anything was found."""
    parser = argparse.ArgumentParser("benchmarks.fuzz", description=__doc__)
    parser.add_argument("--uploads", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first upload")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--bundle", default="mnist")
    options = parser.parse_args(arguments)
    with limbeck(bundle_named(options.models, options.bundle), sys.executable) as server:
        findings = fuzz(server, options.uploads, options.seed, options.first)
    print("\n".join(report(findings, options.seed)))
    return 0 if findings.passed else 1


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
