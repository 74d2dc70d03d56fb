import math
import shutil
import subprocess
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from app.main import create_app
from app.settings import Settings
from tests.images import PGM_TYPE, pgm
from tests.serving import running

SECONDS = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, math.inf]


@pytest.fixture(scope="module")
def exposition(settings: Settings) -> Iterator[str]:
    """The metrics of a fresh app after two good requests and a bad one."""
    with running(create_app(settings)) as client:
        for level in (102, 128):
            client.post("/classify?detect=true", content=pgm(level), headers=PGM_TYPE)
        client.post("/classify", content=b"hello", headers=PGM_TYPE)
        client.get("/no/such/route/1")
        yield client.get("/metrics").text


@pytest.fixture(scope="module")
def families(exposition: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(exposition)}


def value(families: dict[str, Metric], sample: str, **labels: str) -> float:
    (found,) = [
        entry.value
        for family in families.values()
        for entry in family.samples
        if entry.name == sample and labels.items() <= entry.labels.items()
    ]
    return found


def test_the_names_types_and_labels_are_those_of_the_design(families: dict[str, Metric]) -> None:
    kinds = {
        name.removeprefix("limbeck_"): (
            family.type,
            *sorted({label for entry in family.samples for label in entry.labels} - {"le"}),
        )
        for name, family in families.items()
    }
    assert kinds == {
        "requests": ("counter", "method", "route", "status"),
        "request_seconds": ("histogram", "route"),
        "stage_seconds": ("histogram", "model", "stage"),
        "batch_size": ("histogram", "model"),
        "model_loads": ("counter", "model", "result"),
        "queue_depth": ("gauge", "model"),
        "queue_bytes": ("gauge",),
        "lost_log_lines": ("counter",),
        "inflight_requests": ("gauge",),
        "rejected": ("counter", "reason"),
        "shift_ratio": ("histogram", "model"),
        "label_changed": ("counter", "model"),
        "model_info": ("gauge", "model", "provider", "sha256", "version"),
    }


@pytest.mark.parametrize("name", ["limbeck_request_seconds", "limbeck_stage_seconds"])
def test_times_have_the_buckets_of_the_design(families: dict[str, Metric], name: str) -> None:
    edges = {float(s.labels["le"]) for s in families[name].samples if s.name.endswith("_bucket")}
    assert sorted(edges) == SECONDS


def test_requests_are_counted_by_route_and_status(families: dict[str, Metric]) -> None:
    count = "limbeck_requests_total"
    assert value(families, count, route="/classify", method="POST", status="200") == 2
    assert value(families, count, route="/classify", method="POST", status="422") == 1
    assert value(families, count, route="unmatched", status="404") == 1
    assert value(families, "limbeck_rejected_total", reason="not_an_image") == 1


def test_stages_are_timed_for_each_image(families: dict[str, Metric]) -> None:
    count = "limbeck_stage_seconds_count"
    for stage, expected in [
        ("read", 3),
        ("decode", 2),
        ("purify", 2),
        ("classify", 2),
        ("encode", 2),
    ]:
        assert value(families, count, stage=stage, model="tiny") == expected


def test_shifts_and_changed_labels_are_counted(families: dict[str, Metric]) -> None:
    assert value(families, "limbeck_shift_ratio_count", model="tiny") == 2
    assert value(families, "limbeck_label_changed_total", model="tiny") == 1
    assert value(families, "limbeck_batch_size_count", model="tiny") == 2


def test_models_tell_what_they_run_on(families: dict[str, Metric]) -> None:
    name = "limbeck_model_info"
    assert value(families, name, model="tiny", version="2", provider="CPUExecutionProvider") == 1


def test_the_request_for_the_metrics_is_in_flight(families: dict[str, Metric]) -> None:
    assert value(families, "limbeck_inflight_requests") == 1


def test_every_app_counts_for_itself(exposition: str, settings: Settings) -> None:
    with running(create_app(settings)) as client:
        assert 'route="/classify"' not in client.get("/metrics").text


def test_the_content_type_is_that_of_the_text_format(client: httpx.Client) -> None:
    assert client.get("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_has_nothing_to_say(exposition: str) -> None:
    command = ["promtool", "check", "metrics"]
    check = subprocess.run(command, input=exposition, capture_output=True, text=True, check=False)
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")
