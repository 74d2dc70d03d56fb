"""What is known of one request while it is answered: its id, its stages, its outcome."""

import itertools
import os
import re
import time
from dataclasses import dataclass, field

_SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,127}")

# Unique without asking the operating system for randomness at every request.
_PROCESS = os.urandom(8).hex()
_COUNT = itertools.count(1)

# In the order in which they happen.
STAGES = ("read", "decode", "queue", "purify", "classify", "encode")


@dataclass(slots=True)
class Trace:
    """One request's notes, carried in its ASGI scope.

    Attributes:
        request_id: taken over from the client if sane, else made.
        started: monotonic seconds.
        stages: stage -> seconds; of several images the slowest.
        model: `name@version`, once it is known.
        images: how many images the request carried.
        error: the code of the failure that was answered.
        spans: stage, `time.perf_counter()` at its beginning, and seconds, of every image; None
            where nobody writes traces.
    """

    request_id: str
    started: float = field(default_factory=time.perf_counter)
    stages: dict[str, float] = field(default_factory=dict)
    model: str | None = None
    images: int = 0
    error: str | None = None
    spans: list[tuple[str, float, float]] | None = None

    def note(self, stage: str, seconds: float, started: float | None = None) -> None:
        """Record what a stage took; of several images the slowest counts.

        Args:
            stage: one of `STAGES`.
            seconds: how long it was.
            started: `time.perf_counter()` at its beginning; None if it ends now.
        """
        if self.spans is not None:
            began = time.perf_counter() - seconds if started is None else started
            self.spans.append((stage, began, seconds))
        if seconds > self.stages.get(stage, -1.0):
            self.stages[stage] = seconds

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What every answer says of its request."""
        return [
            (b"x-request-id", self.request_id.encode()),
            (b"server-timing", self.server_timing().encode()),
        ]

    def server_timing(self) -> str:
        """The value of the `Server-Timing` header, milliseconds; the total comes last."""
        total = time.perf_counter() - self.started
        stages = [(stage, self.stages[stage]) for stage in STAGES if stage in self.stages]
        return ", ".join(
            f"{stage};dur={seconds * 1000:.3f}" for stage, seconds in [*stages, ("total", total)]
        )


def request_id(offered: str | None) -> str:
    """The offered id, if it can be put into a header and a log line as it is; else a new one."""
    if offered is not None and _SANE_ID.fullmatch(offered):
        return offered
    return f"{_PROCESS}{next(_COUNT):016x}"
