"""The service's Prometheus metrics.

Every app has a registry of its own. With several workers the client library keeps its values in
files (`PROMETHEUS_MULTIPROC_DIR`, to be set before this module is imported), and `render` gives
their sum over all workers, those that died included. `app/ledger.py` keeps the files.
"""

import os
from collections.abc import Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector

from app.trace import STAGES

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
RATIOS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)

# The library would add a gauge `_created` beside every counter, which nothing reads.
disable_created_metrics()  # type: ignore[no-untyped-call]


def use_place(place: int) -> None:
    """Count in the files of this place among the workers; before any metric is made.

    A worker that takes the place of one that died goes on with its files. With the library's own
    choice, the process id, each of them would leave files behind, and a scrape would read them all.
    """
    values.ValueClass = values.MultiProcessValue(lambda: place)  # type: ignore[no-untyped-call]


class Metrics:
    """All metrics of one app."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            "limbeck_requests_total",
            "Requests answered.",
            ["route", "method", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "limbeck_request_seconds",
            "Time from a request's head to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "limbeck_stage_seconds",
            "Time spent in one stage: read and encode of each request, the others of each image.",
            ["stage", "model"],
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "limbeck_batch_size",
            "Images computed together.",
            ["model"],
            buckets=IMAGES,
            registry=registry,
        )
        self.queue_depth = Gauge(
            "limbeck_queue_depth",
            "Images waiting for inference.",
            ["model"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.queue_bytes = Gauge(
            "limbeck_queue_bytes",
            "Bytes of uploads and decoded pixels held for requests, over all models.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.inflight = Gauge(
            "limbeck_inflight_requests",
            "Requests being answered.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.rejected = Counter(
            "limbeck_rejected_total",
            "Requests refused or failed, by the code of the answer.",
            ["reason"],
            registry=registry,
        )
        self.shift_ratio = Histogram(
            "limbeck_shift_ratio",
            "How far purification moved the classifier: Jensen-Shannon divergence in bits, 0 to 1.",
            ["model"],
            buckets=RATIOS,
            registry=registry,
        )
        self.label_changed = Counter(
            "limbeck_label_changed_total",
            "Images whose label purification changed.",
            ["model"],
            registry=registry,
        )
        self.lost_log_lines = Counter(
            "limbeck_lost_log_lines_total",
            "Log lines that could not be written.",
            registry=registry,
        )
        self.model_info = Gauge(
            "limbeck_model_info",
            "1 for each model that is served.",
            ["model", "version", "sha256", "provider"],
            multiprocess_mode="livemax",
            registry=registry,
        )

        self.model_loads = Counter(
            "limbeck_model_loads_total",
            "Versions of bundles that were loaded or refused since the start.",
            ["model", "result"],
            registry=registry,
        )

    def forget_model(self, *labels: str) -> None:
        """Let a model that is not served any more vanish from `limbeck_model_info`."""
        _forget(self.model_info, labels)

    def forget_bundle(self, name: str) -> None:
        """Let the gauges of a bundle without a served version vanish; counts stay."""
        _forget(self.queue_depth, (name,))

    def render(self) -> bytes:
        """The text format, of this process or of all workers."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)


def _forget(gauge: Gauge, labels: Sequence[str]) -> None:
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        gauge.labels(*labels).set(0)  # the library cannot remove what it keeps in files
    else:
        gauge.remove(*labels)


class ModelMetrics:
    """The metrics of one model, their labels looked up once.

    Args:
        metrics: of the app.
        model: the bundle's name; its versions share their series.
    """

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._stages = {stage: metrics.stage_seconds.labels(stage, model) for stage in STAGES}
        self.batch_size = metrics.batch_size.labels(model)
        self.queue_depth = metrics.queue_depth.labels(model)
        self.shift_ratio = metrics.shift_ratio.labels(model)
        self.label_changed = metrics.label_changed.labels(model)
        for result in ("loaded", "refused"):
            metrics.model_loads.labels(model, result)  # at 0, or the first one would be no increase

    def observe(self, stage: str, seconds: float) -> None:
        """What one image spent in one stage."""
        self._stages[stage].observe(seconds)
