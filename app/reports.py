"""What is told of each request that was answered: its count, its time, its line in the log."""

import time
from functools import cache

from app.logs import AccessLog, Fields
from app.metrics import Metrics
from app.trace import Trace


class Reports:
    """Counts and logs requests.

    Args:
        metrics: where they are counted.
    """

    def __init__(self, metrics: Metrics) -> None:
        # Few different labels, and looking for theirs takes longer than counting.
        self._requests = cache(metrics.requests.labels)
        self._seconds = cache(metrics.request_seconds.labels)
        self._rejected = cache(metrics.rejected.labels)
        self._log = AccessLog()

    def ended(self, trace: Trace, method: str, route: str, status: int) -> float:
        """A request has its answer; when that was, `time.perf_counter()`.

        Args:
            trace: the request's notes.
            method: one of a few.
            route: its pattern; paths are the client's choice and would grow the metrics.
            status: of the answer.
        """
        ended = time.perf_counter()
        seconds = ended - trace.started
        self._requests(route, method, str(status)).inc()
        self._seconds(route).observe(seconds)
        if trace.error:
            self._rejected(trace.error).inc()
        if self._log.enabled:
            self._log.add(_fields(trace, method, route, status, seconds))
        return ended


def _fields(trace: Trace, method: str, route: str, status: int, seconds: float) -> Fields:
    fields: Fields = {
        "request_id": trace.request_id,
        "method": method,
        "route": route,
        "status": status,
        "duration_ms": round(seconds * 1000, 3),
        "model": trace.model,
        "images": trace.images,
        "stages_ms": {stage: round(s * 1000, 3) for stage, s in trace.stages.items()},
    }
    if trace.error:
        fields["error"] = trace.error
    return fields
