"""Good and bad requests for a long time: nothing may leak, and nothing unexpected be answered.

Run `make soak`, or `python -m benchmarks.soak --help`.
"""

import argparse
import socket
import statistics
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
from benchmarks.mutation import seed_files
from benchmarks.workloads import broken_files, http_request

MAX_GROWTH = 0.03
WARM_UP = 0.2
_CLIENTS = 8
_SAMPLE_EVERY_S = 1.0
_OVERLOAD = (503,)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of request.

    Attributes:
        expected: the statuses that it may have; 503 is possible for every upload.
        hangs_up: the client does not wait for the answer.
    """

    name: str
    request: bytes
    expected: tuple[int, ...]
    hangs_up: bool = False


@dataclass(slots=True)
class Soaked:
    """What a soak found.

    Attributes:
        answers: (kind, status) -> how many.
        unexpected: (kind, what happened) -> how many.
        memory_mib: one sample a second after the warm-up.
        files_before: descriptors of the idle server after a first request of each kind.
        files_after: descriptors of the idle server in the end.
    """

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    unexpected: Counter[tuple[str, str]] = field(default_factory=Counter)
    memory_mib: list[float] = field(default_factory=list)
    files_before: int = 0
    files_after: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def growth(self) -> float:
        """From the first tenth of the samples to the last tenth, medians, as a share."""
        tenth = max(1, len(self.memory_mib) // 10)
        first = statistics.median(self.memory_mib[:tenth])
        return statistics.median(self.memory_mib[-tenth:]) / first - 1

    @property
    def passed(self) -> bool:
        """Whether nothing leaked and nothing unexpected was answered."""
        leaked = self.files_after > self.files_before
        return not self.unexpected and not leaked and self.growth <= MAX_GROWTH


def kinds() -> list[Kind]:
    """The mixture: good ones, wrong ones, impatient ones."""
    files = seed_files()
    png, jpeg = files[0], next(f for f in files if f.startswith(b"\xff\xd8"))
    good = http_request("/classify?detect=true", png, "image/png", "raw")
    impatient = good.replace(b"\r\n\r\n", b"\r\nX-Request-Timeout-Ms: 1\r\n\r\n", 1)
    truncated, damaged, no_image = broken_files([png, png])
    upload = (200, *_OVERLOAD)
    return [
        Kind("classify PNG", good, upload),
        Kind("classify form", http_request("/classify", jpeg, "image/jpeg", "multipart"), upload),
        Kind("purify JPEG", http_request("/purify", jpeg, "image/jpeg", "raw"), (*upload, 406)),
        Kind("truncated", http_request("/classify", truncated, "image/png", "raw"), (422, 503)),
        Kind("damaged", http_request("/purify", damaged, "image/png", "multipart"), (422, 503)),
        Kind("no image", http_request("/classify", no_image, "image/png", "raw"), (422, 503)),
        Kind(
            "refused format", http_request("/classify", b"GIF89a", "image/gif", "raw"), (415, 503)
        ),
        Kind("no form", _no_form(), (400, 503)),
        Kind("unknown model", http_request("/classify?model=no", png, "image/png", "raw"), (404,)),
        Kind("impatient", impatient, (*upload, 504)),
        Kind("hangs up", good, (), hangs_up=True),
        Kind("metrics", _get("/metrics"), (200,)),
        Kind("models", _get("/models"), (200,)),
    ]


def soak(server: Limbeck, seconds: float) -> Soaked:
    """Send the mixture for this long."""
    soaked, mixture = Soaked(), kinds()
    with Connection(server.port) as connection:
        for kind in mixture:
            _send(server, connection, kind, soaked)
    soaked.files_before = _idle_files(server)
    started = time.monotonic()
    end = started + seconds

    def client(offset: int) -> None:
        with Connection(server.port) as connection:
            number = offset
            while time.monotonic() < end:
                _send(server, connection, mixture[number % len(mixture)], soaked)
                number += 1

    with ThreadPoolExecutor(_CLIENTS) as threads:
        clients = [threads.submit(client, offset) for offset in range(_CLIENTS)]
        while (left := end - time.monotonic()) > 0:
            if time.monotonic() - started >= WARM_UP * seconds:
                soaked.memory_mib.append(server.memory_mib())
            time.sleep(min(_SAMPLE_EVERY_S, left))
        for done in clients:
            done.result()
    soaked.memory_mib.append(server.memory_mib())
    soaked.files_after = _idle_files(server)
    return soaked


def _send(server: Limbeck, connection: Connection, kind: Kind, soaked: Soaked) -> None:
    try:
        if kind.hangs_up:
            with socket.create_connection(("127.0.0.1", server.port), 30) as own:
                own.sendall(kind.request)
            status = 0
        else:
            status, _ = connection.exchange(kind.request)
    except OSError as error:
        with soaked.lock:
            soaked.unexpected[kind.name, str(error)] += 1
        return
    with soaked.lock:
        soaked.answers[kind.name, status] += 1
        if not kind.hangs_up and status not in kind.expected:
            soaked.unexpected[kind.name, str(status)] += 1


def _idle_files(server: Limbeck) -> int:
    """Descriptors once the server has noticed that its clients are gone: the fewest of a while."""
    fewest = server.process.open_files()
    for _ in range(20):
        time.sleep(0.05)
        fewest = min(fewest, server.process.open_files())
    return fewest


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def _no_form() -> bytes:
    form = http_request("/classify", b"x", "image/png", "multipart")
    return form.replace(b"\r\n\r\n--", b"\r\n\r\n++", 1)


def report(soaked: Soaked, seconds: float) -> Iterator[str]:
    """What was found, as a table."""
    yield f"{seconds:g} s, {_CLIENTS} clients, {sum(soaked.answers.values()):,} requests"
    yield ""
    yield "| request | answers |"
    yield "|---|---|"
    for kind in kinds():
        found = sorted((s, n) for (name, s), n in soaked.answers.items() if name == kind.name)
        shown = ", ".join(f"{status or 'not awaited'}: {count:,}" for status, count in found)
        yield f"| {kind.name} | {shown} |"
    yield ""
    yield "| | found | allowed |"
    yield "|---|---:|---:|"
    yield f"| unexpected | {sum(soaked.unexpected.values())} | 0 |"
    yield f"| open files before, after | {soaked.files_before}, {soaked.files_after} | no more |"
    yield (
        f"| memory after the warm-up, at the end, MiB | {soaked.memory_mib[0]:.1f}, "
        f"{soaked.memory_mib[-1]:.1f} ({soaked.growth:+.1%}) | {MAX_GROWTH:+.0%} |"
    )
    for (name, what), count in soaked.unexpected.most_common(20):
        yield f"{name}: {what} ({count:,} times)"


def run(arguments: list[str]) -> int:
    """The command; 1 if anything was found."""
    parser = argparse.ArgumentParser("benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--bundle", default="mnist")
    options = parser.parse_args(arguments)
    seconds = options.minutes * 60
    with limbeck(bundle_named(options.models, options.bundle), sys.executable) as server:
        soaked = soak(server, seconds)
    print("\n".join(report(soaked, seconds)))
    return 0 if soaked.passed else 1


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
