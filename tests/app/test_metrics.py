import os
import subprocess
import sys
from pathlib import Path

from app.metrics import Metrics, ModelMetrics

ROOT = Path(__file__).parents[2]

COUNT_AND_RENDER = """
from app.metrics import Metrics
metrics = Metrics()
metrics.requests.labels("/classify", "POST", "200").inc()
metrics.inflight.inc()
metrics.request_seconds.labels("/classify").observe(0.003)
metrics.model_info.labels("tiny", "1", "0", "CPU").set(1)
metrics.forget_model("tiny", "1", "0", "CPU")
print(metrics.render().decode())
"""


def test_a_model_has_its_labels_looked_up() -> None:
    metrics = Metrics()
    tiny = ModelMetrics(metrics, "tiny")
    tiny.observe("decode", 0.0007)
    tiny.queue_depth.set(3)
    text = metrics.render().decode()
    assert 'limbeck_stage_seconds_bucket{le="0.0005",model="tiny",stage="decode"} 0.0' in text
    assert 'limbeck_stage_seconds_bucket{le="0.001",model="tiny",stage="decode"} 1.0' in text
    assert 'limbeck_queue_depth{model="tiny"} 3.0' in text


def test_a_model_that_is_gone_leaves_counts_but_no_gauges() -> None:
    metrics = Metrics()
    tiny = ModelMetrics(metrics, "tiny")
    tiny.observe("decode", 0.0007)
    tiny.queue_depth.inc()
    labels = ("tiny", "1", "0" * 64, "CPUExecutionProvider")
    metrics.model_info.labels(*labels).set(1)
    for _ in range(2):
        metrics.forget_model(*labels)
        metrics.forget_bundle("tiny")
    text = metrics.render().decode()
    assert "limbeck_model_info{" not in text and "limbeck_queue_depth{" not in text
    assert 'limbeck_stage_seconds_count{model="tiny",stage="decode"} 1.0' in text


def test_registries_are_apart() -> None:
    first, second = Metrics(), Metrics()
    first.inflight.inc()
    assert b"limbeck_inflight_requests 0.0" in second.render()


def test_nothing_is_rendered_that_nobody_reads() -> None:
    metrics = Metrics()
    metrics.requests.labels("/classify", "POST", "200").inc()
    assert b"_created" not in metrics.render()


def test_several_processes_are_added_up(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for _ in range(2):
        rendered = subprocess.run(
            [sys.executable, "-c", COUNT_AND_RENDER],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    assert 'limbeck_requests_total{method="POST",route="/classify",status="200"} 2.0' in rendered
    assert 'limbeck_model_info{model="tiny",provider="CPU",sha256="0",version="1"} 0.0' in rendered
    assert 'limbeck_request_seconds_bucket{le="0.005",route="/classify"} 2.0' in rendered
    assert 'limbeck_request_seconds_bucket{le="0.002",route="/classify"} 0.0' in rendered
