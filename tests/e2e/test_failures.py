"""What the machine may refuse the service: memory, a disk to write to, a reader of its log."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from app.listener import bind
from tests.images import PGM_TYPE, encoded, pgm
from tests.server_process import TIMEOUT_S, environment, metric, server, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="uses Linux' limits and devices")

LOST = "limbeck_lost_log_lines_total"


def full(command: list[str]) -> list[str]:
    return ["sh", "-c", 'exec "$@" >/dev/full 2>/dev/full', "sh", *command]


def closed(command: list[str]) -> list[str]:
    return ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]


def unread(command: list[str]) -> list[str]:
    # The reader ends at once.
    return ["bash", "-c", 'exec "$@" > >(true) 2>&1', "bash", *command]


def without_files(command: list[str]) -> list[str]:
    # No byte may be written to any file, as on a file system that is read-only.
    return ["sh", "-c", 'ulimit -f 0; exec "$@" >/dev/null', "sh", *command]


@contextmanager
def silent_server(
    models_dir: Path, wrap: Callable[[list[str]], list[str]]
) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """A server that cannot say where it listens, ready."""
    with bind("127.0.0.1", 0) as held:
        port = held.getsockname()[1]
    process = subprocess.Popen(
        wrap([sys.executable, "-m", "app"]),
        cwd=models_dir,
        env=environment(models_dir, port=port, default_model="tiny", shutdown_delay_s=0),
    )
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=TIMEOUT_S, trust_env=False
        ) as client:
            wait_until(lambda: process.poll() is not None or answers(client))
            assert process.poll() is None
            yield process, client
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health/ready").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize(
    ("wrap", "loses"),
    [(full, True), (unread, True), (closed, False), (without_files, False)],
    ids=["full", "unread", "closed", "without files"],
)
def test_whatever_becomes_of_its_log_the_service_answers(
    models_dir: Path, wrap: Callable[[list[str]], list[str]], loses: bool
) -> None:
    with silent_server(models_dir, wrap) as (process, client):
        for _ in range(3):
            answer = client.post("/classify", content=pgm(102), headers=PGM_TYPE)
            assert answer.json()["label"] == "grey"
        assert (metric(client, LOST) >= 3) == loses
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0


def test_several_workers_say_that_they_need_a_folder_to_write_to(models_dir: Path) -> None:
    inherited = environment(models_dir, workers=2)
    failed = subprocess.run(
        without_files([sys.executable, "-m", "app"]),
        # Measuring coverage writes a file, and would say so.
        env={k: v for k, v in inherited.items() if not k.startswith("COVERAGE_")},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert failed.returncode == 1
    assert "cannot start: " in failed.stderr
    assert "temporary folder" in failed.stderr
    assert "Traceback" not in failed.stderr


def address_space(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text().split()[0]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def test_an_image_without_memory_for_it_is_refused_and_the_service_lives(models_dir: Path) -> None:
    large = encoded(Image.fromarray(np.zeros((4900, 4900, 3), np.uint8)))
    with server(models_dir, default_model="tiny", shutdown_delay_s=0) as running:
        pid = running.process.pid
        # Threads that decode have their stacks from now on.
        assert running.client.post("/classify", content=large, headers=PGM_TYPE).status_code == 200
        limits = resource.prlimit(pid, resource.RLIMIT_AS)
        resource.prlimit(pid, resource.RLIMIT_AS, (address_space(pid) + (16 << 20), limits[1]))
        answer = running.client.post("/classify", content=large, headers=PGM_TYPE)
        assert (answer.status_code, answer.json()["code"]) == (503, "out_of_memory")
        assert running.client.post("/classify", content=pgm(102), headers=PGM_TYPE).is_success
        resource.prlimit(pid, resource.RLIMIT_AS, limits)
        assert running.client.post("/classify", content=large, headers=PGM_TYPE).is_success
        running.process.send_signal(signal.SIGTERM)
        told = [line["message"] for line in running.end()]
    assert "out of memory while an image was decoded" in told
