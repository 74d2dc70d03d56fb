"""OpenTelemetry spans: one a request and one a stage, written when the request has ended.

The stages are timed anyway, so a trace costs a request nothing while it is worked on. The SDK of
OpenTelemetry is not imported unless the environment asks for traces.
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.types import Scope

from app.settings import SettingsError
from app.trace import Trace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

# The standard variables that ask for traces; what they say beyond that is the SDK's to read.
_EXPORTER = "OTEL_TRACES_EXPORTER"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_SERVICE_NAME = "limbeck"


class Spans:
    """Writes what is known of ended requests as spans.

    Args:
        provider: of OpenTelemetry's SDK, with a processor that exports.
    """

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import propagate, trace

        self._provider = provider
        self._tracer = provider.get_tracer("limbeck")
        self._extract = propagate.extract
        self._api = trace

    def write(self, scope: Scope, notes: Trace, name: str, status: int, ended: float) -> None:
        """The span of one request, below the caller's `traceparent`, and those of its stages.

        Args:
            scope: the request's ASGI scope.
            notes: its stages, with when they began.
            name: the method and the route's pattern.
            status: of the answer.
            ended: `time.perf_counter()`.
        """
        # Spans are dated by the wall clock, and measured by the one that cannot be set.
        offset_ns = time.time_ns() - time.perf_counter_ns()

        def at(seconds: float) -> int:
            return int(seconds * 1e9) + offset_ns

        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        method, _, route = name.partition(" ")
        span = self._tracer.start_span(
            name,
            context=self._extract(headers),
            kind=self._api.SpanKind.SERVER,
            start_time=at(notes.started),
            attributes={
                "http.request.method": method,
                "http.route": route,
                "http.response.status_code": status,
                "limbeck.request_id": notes.request_id,
                "limbeck.images": notes.images,
                **({"limbeck.model": notes.model} if notes.model else {}),
                **({"error.type": notes.error} if notes.error else {}),
            },
        )
        if status >= 500:
            span.set_status(self._api.StatusCode.ERROR, notes.error or "")
        within = self._api.set_span_in_context(span)
        for stage, started, seconds in notes.spans or ():
            child = self._tracer.start_span(stage, context=within, start_time=at(started))
            child.end(at(started + seconds))
        span.end(at(ended))

    def close(self) -> None:
        """Export what is left."""
        self._provider.shutdown()


def spans_wanted(environ: Mapping[str, str]) -> Spans | None:
    """Spans as the standard `OTEL_*` variables ask for; None if they do not.

    Raises:
        SettingsError: they do, and it is not possible.
    """
    asking = _asking(environ)
    if asking is None:
        return None
    try:
        return _open(environ.get(_EXPORTER, "otlp"))
    except ImportError as error:
        raise SettingsError(
            f"{asking} asks for traces, and {error.name} is not installed: "
            "pip install 'limbeck[tracing]', or unset the variable"
        ) from error


def _asking(environ: Mapping[str, str]) -> str | None:
    """The variable that asks for traces."""
    exporter = environ.get(_EXPORTER, "")
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return None
    return next((name for name in (_EXPORTER, *_ENDPOINTS) if environ.get(name)), None)


def _open(exporter: str) -> Spans:
    """Spans to this exporter, from a thread of its own."""
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # What the environment names the service comes on top.
    named = Resource({SERVICE_NAME: _SERVICE_NAME}).merge(Resource.create())
    provider = TracerProvider(resource=named)
    provider.add_span_processor(BatchSpanProcessor(_exporter(exporter)))
    return Spans(provider)


def _exporter(name: str) -> "SpanExporter":
    if name in ("otlp", ""):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter()
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    raise SettingsError(f"{_EXPORTER}={name!r}: this must be otlp, console or none")
