"""Traces, written into memory by OpenTelemetry's own SDK."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from app.main import create_app
from app.settings import Settings, SettingsError
from app.tracing import Spans, spans_wanted
from tests.images import PGM_TYPE, multipart, pgm
from tests.serving import running

TRACE_ID, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLED = {"traceparent": f"00-{TRACE_ID}-{CALLER}-01"}


class Traced:
    """An app that writes traces into memory."""

    def __init__(self, client: httpx.Client, exporter: InMemorySpanExporter) -> None:
        self.client = client
        self._exporter = exporter

    def spans(self, request_id: str) -> tuple[ReadableSpan, list[ReadableSpan]]:
        """A request's span and those of its stages, once it has ended."""
        while True:
            spans = self._exporter.get_finished_spans()
            for span in spans:
                if (span.attributes or {}).get("limbeck.request_id") == request_id:
                    return span, [s for s in spans if s.parent and s.parent == span.context]


@pytest.fixture(scope="module")
def traced(settings: Settings) -> Iterator[Traced]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with running(create_app(settings, Spans(provider))) as client:
        yield Traced(client, exporter)


def test_a_request_and_each_of_its_stages_is_a_span(traced: Traced) -> None:
    headers = {**PGM_TYPE, **CALLED, "X-Request-ID": "one"}
    traced.client.post("/classify?purify=true", content=pgm(102), headers=headers)
    request, stages = traced.spans("one")
    assert (request.name, request.kind) == ("POST /classify", SpanKind.SERVER)
    assert request.context is not None and request.parent is not None
    assert f"{request.context.trace_id:032x}" == TRACE_ID
    assert f"{request.parent.span_id:016x}" == CALLER
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["limbeck.model"] == "tiny@2"
    stages.sort(key=lambda span: span.start_time or 0)
    assert [s.name for s in stages] == ["read", "decode", "queue", "purify", "classify", "encode"]
    bounds = [time for span in (request, *stages) for time in (span.start_time, span.end_time)]
    begun, ended, *inner = [time or 0 for time in bounds]
    assert all(begun <= time <= ended for time in inner)
    assert all(start <= end for start, end in zip(inner[::2], inner[1::2], strict=True))


def test_each_image_of_a_form_has_its_own_stages(traced: Traced) -> None:
    body, headers = multipart(("file", pgm(102)), ("file", pgm(10)))
    traced.client.post("/classify", content=body, headers=headers | {"X-Request-ID": "two"})
    names = [span.name for span in traced.spans("two")[1]]
    assert sorted(names) == sorted(["read", *["decode", "queue", "classify"] * 2, "encode"])


def test_a_failure_is_told(traced: Traced) -> None:
    traced.client.post("/classify", content=b"x", headers={**PGM_TYPE, "X-Request-ID": "three"})
    request, _ = traced.spans("three")
    assert request.attributes is not None
    assert request.attributes["error.type"] == "not_an_image"
    assert request.status.status_code is StatusCode.UNSET  # the caller's fault
    headers = {**PGM_TYPE, "X-Request-ID": "four"}
    traced.client.post("/classify?model=brittle", content=pgm(255), headers=headers)
    assert traced.spans("four")[0].status.status_code is StatusCode.ERROR


def test_a_context_that_is_no_context_begins_a_trace_of_its_own(traced: Traced) -> None:
    headers = {"traceparent": "00-nonsense", "X-Request-ID": "five"}
    traced.client.get("/models", headers=headers)
    assert traced.spans("five")[0].parent is None


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"},
        {"OTEL_SDK_DISABLED": "TRUE", "OTEL_TRACES_EXPORTER": "console"},
        {"OTEL_SERVICE_NAME": "other"},
    ],
)
def test_nobody_is_traced_unasked(environ: dict[str, str]) -> None:
    assert spans_wanted(environ) is None


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_TRACES_EXPORTER": "console"},
        {"OTEL_TRACES_EXPORTER": "otlp"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"},
    ],
)
def test_the_standard_variables_ask_for_traces(environ: dict[str, str]) -> None:
    spans = spans_wanted(environ)
    assert spans is not None
    spans.close()


def test_an_exporter_that_there_is_not_is_refused() -> None:
    with pytest.raises(SettingsError, match="OTEL_TRACES_EXPORTER='zipkin'"):
        spans_wanted({"OTEL_TRACES_EXPORTER": "zipkin"})


def test_what_is_asked_for_and_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(SettingsError, match=r"OTEL_TRACES_EXPORTER asks.*limbeck\[tracing\]"):
        spans_wanted({"OTEL_TRACES_EXPORTER": "otlp"})


def test_unasked_nothing_of_it_is_imported() -> None:
    code = "import sys, app.server; print('opentelemetry.sdk' in sys.modules)"
    root = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert found.stdout.strip() == "False", found.stderr
