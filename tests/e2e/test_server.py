"""The server as a process of its own: its start, its refusals to start, its end."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.bundles import Design, make_bundle
from tests.images import PGM_TYPE, encoded, gradient, pgm
from tests.server_process import ROOT, TIMEOUT_S, Server, refusal, resident_mib, server


@pytest.fixture(scope="module")
def running(models_dir: Path) -> Iterator[Server]:
    """A server that the tests which leave it running share."""
    with server(models_dir, default_model="tiny") as shared:
        yield shared


@pytest.fixture(scope="module")
def slow_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slow")
    make_bundle(folder, "slow", 1, Design(work=20_000))
    return folder


def test_an_image_is_purified_and_classified(running: Server) -> None:
    purified = running.client.post("/purify", content=pgm(102), headers=PGM_TYPE)
    assert purified.headers["content-type"] == "image/png"
    answer = running.client.post("/classify?purify=true", content=pgm(102), headers=PGM_TYPE)
    assert answer.json()["label"] == "dark"


def test_photographs_of_every_format_are_classified(running: Server) -> None:
    for format in ("PNG", "JPEG", "WebP", "BMP", "PPM"):
        photograph = ("photo", encoded(gradient(1600, 1200), format))
        answer = running.client.post("/classify", files={"file": photograph})
        assert answer.status_code == 200, answer.text
        assert answer.json()["image"]["width"] == 1600


def test_a_large_body_is_refused_and_the_connection_lives(running: Server) -> None:
    for _ in range(2):
        answer = running.client.post("/classify", content=bytes(20 << 20), headers=PGM_TYPE)
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert running.client.get("/health/ready").status_code == 200


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux' /proc")
def test_memory_stays_bounded_however_much_is_sent(running: Server) -> None:
    def endless() -> Iterator[bytes]:
        yield from (bytes(1 << 20) for _ in range(400))

    before = resident_mib(running.process)
    answer = running.client.post("/classify", content=endless(), headers=PGM_TYPE)
    assert answer.status_code == 413
    # The limit is 16 MiB; what comes after it is read and dropped.
    assert resident_mib(running.process) < before + 64


def test_the_log_has_one_line_a_request(models_dir: Path) -> None:
    with server(models_dir, default_model="tiny", shutdown_delay_s=0) as own:
        headers = {**PGM_TYPE, "X-Request-ID": "mine"}
        own.client.post("/classify", content=pgm(102), headers=headers)
        own.process.send_signal(signal.SIGTERM)
        lines = [line for line in own.end() if line.get("request_id") == "mine"]
    assert len(lines) == 1
    assert (lines[0]["route"], lines[0]["status"], lines[0]["model"]) == (
        "/classify",
        200,
        "tiny@2",
    )


def test_readiness_fails_first_and_the_service_still_answers(models_dir: Path) -> None:
    # The delay is longer than the test may take; the second signal ends it.
    with server(models_dir, default_model="tiny", shutdown_delay_s=TIMEOUT_S) as own:
        own.process.send_signal(signal.SIGTERM)
        while (ready := own.client.get("/health/ready")).status_code == 200:
            pass
        assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
        answer = own.client.post("/classify", content=pgm(102), headers=PGM_TYPE)
        assert answer.status_code == 200
        own.process.send_signal(signal.SIGTERM)
        messages = [line["message"] for line in own.end()]
        # Nothing was left unanswered, so the end is a success, however it was hurried.
        assert "ended before every request was answered" not in messages
        assert own.process.returncode == 0


def wait_until_computing(client: httpx.Client) -> None:
    read = 'limbeck_stage_seconds_count{model="slow",stage="read"} 1.0'
    while read not in client.get("/metrics").text:
        pass


def test_what_was_accepted_is_answered_before_the_end(slow_dir: Path) -> None:
    with (
        server(slow_dir, shutdown_delay_s=0, max_batch_size=1) as own,
        ThreadPoolExecutor(1) as pool,
    ):
        slow = pool.submit(own.client.post, "/classify", content=pgm(102), headers=PGM_TYPE)
        wait_until_computing(own.client)
        own.process.send_signal(signal.SIGTERM)
        assert slow.result().json()["label"] == "grey"
        own.end()
        assert own.process.returncode == 0


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    # Nobody waits for this work: it has only to outlast the two signals.
    make_bundle(tmp_path, "slow", 1, Design(work=10_000_000))
    with server(tmp_path, max_batch_size=1) as own, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(own.client.post, "/classify", content=pgm(102), headers=PGM_TYPE)
        wait_until_computing(own.client)
        own.process.send_signal(signal.SIGTERM)
        while own.client.get("/health/ready").status_code == 200:
            pass
        own.process.send_signal(signal.SIGTERM)
        own.end()
        assert own.process.returncode == 3
        # Whether the client still hears of it is a matter of luck; it is never told of a success.
        assert slow.exception() is not None or slow.result().status_code == 500


def test_an_interrupt_is_a_success_too(models_dir: Path) -> None:
    with server(models_dir) as own:
        own.process.send_signal(signal.SIGINT)
        own.end()
        assert own.process.returncode == 0


def test_a_corrupt_bundle_is_named(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    with (folder / "purifier.onnx").open("ab") as file:
        file.write(b"\0")
    failed = refusal(tmp_path)
    assert failed.returncode == 1
    assert f"cannot start: {folder / 'purifier.onnx'}: has SHA-256" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_the_service_imports_neither_torch_nor_onnx() -> None:
    command = "import sys, app.server, app.worker; print(*sys.modules)"
    imported = subprocess.run(
        [sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {"torch", "onnx", "training"}.isdisjoint(imported.stdout.split())
