"""Several workers under a supervisor: one service to whoever looks from outside."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.bundles import Design, make_bundle, publish_bundle
from tests.images import PGM_TYPE, pgm
from tests.server_process import TIMEOUT_S, Server, metric, refusal, server, wait_until

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads Linux' /proc")

CLASSIFIED = 'limbeck_requests_total{method="POST",route="/classify",status="200"}'
BUCKETS = 'limbeck_request_seconds_bucket{le="+Inf",route="/classify"}'
MEASURED = 'limbeck_request_seconds_count{route="/classify"}'


def workers_of(running: Server) -> set[int]:
    """The process ids of the workers."""
    pid = running.process.pid
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def classify(client: httpx.Client, level: int = 102) -> httpx.Response:
    """One image, on a connection of its own."""
    url = client.base_url.join("/classify")
    image = pgm(level)
    return httpx.post(url, content=image, headers=PGM_TYPE, timeout=TIMEOUT_S, trust_env=False)


@pytest.fixture(scope="module")
def pair(models_dir: Path) -> Iterator[Server]:
    with server(models_dir, default_model="tiny", workers=2, shutdown_delay_s=0) as running:
        running.log.next_with("2 of 2 workers are ready")
        yield running


def test_connections_are_shared_and_any_worker_tells_the_sum(pair: Server) -> None:
    before = metric(pair.client, CLASSIFIED)
    clients = [
        httpx.Client(base_url=pair.client.base_url, timeout=TIMEOUT_S, trust_env=False)
        for _ in range(8)
    ]
    for client in clients:
        assert client.post("/classify", content=pgm(102), headers=PGM_TYPE).status_code == 200
    # Kept alive, the connections stay with their workers: every one must tell the same.
    for client in clients:
        assert f"{CLASSIFIED} {before + 8}" in client.get("/metrics").text
    sockets = [
        sum("socket:" in os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir())
        for pid in workers_of(pair)
    ]
    for client in clients:
        client.close()
    assert abs(sockets[0] - sockets[1]) <= 4


def test_a_worker_that_dies_is_replaced_and_what_it_counted_is_kept(pair: Server) -> None:
    for _ in range(4):
        classify(pair.client)
    before = metric(pair.client, CLASSIFIED)
    for victim in workers_of(pair):
        os.kill(victim, signal.SIGKILL)
        # The other one answers meanwhile, or whoever comes next.
        assert classify(pair.client).status_code == 200
        pair.log.next_with("2 of 2 workers are ready")
    assert metric(pair.client, CLASSIFIED) == before + 2
    assert metric(pair.client, BUCKETS) == metric(pair.client, MEASURED) == before + 2
    # The scrape itself; what the dead were about is forgotten.
    assert metric(pair.client, "limbeck_inflight_requests") == 1


def test_what_was_accepted_is_answered_and_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bundle(tmp_path / "models", "slow", 1, Design(work=20_000))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with (
        server(tmp_path / "models", workers=2, shutdown_delay_s=0, max_batch_size=1) as running,
        ThreadPoolExecutor(4) as pool,
    ):
        running.log.next_with("2 of 2 workers are ready")
        workers = workers_of(running)
        assert len(list(temporary.iterdir())) == 1
        answers = [pool.submit(classify, running.client) for _ in range(4)]
        read = 'limbeck_stage_seconds_count{model="slow",stage="read"}'
        wait_until(lambda: metric(running.client, read) == 4)
        running.process.send_signal(signal.SIGTERM)
        assert [answer.result().status_code for answer in answers] == [200] * 4
        running.end()
        assert running.process.returncode == 0
    assert not any(map(lives, workers))
    assert list(temporary.iterdir()) == []


def test_a_bundle_that_no_worker_can_load_is_named_once(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    with (folder / "purifier.onnx").open("ab") as file:
        file.write(b"\0")
    failed = refusal(tmp_path, workers=2)
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert f"cannot start: {folder / 'purifier.onnx'}: has SHA-256" in failed.stderr


def test_a_worker_that_replaces_another_serves_what_the_others_do(tmp_path: Path) -> None:
    make_bundle(tmp_path)
    with server(tmp_path, workers=2, shutdown_delay_s=0) as running:
        running.log.next_with("2 of 2 workers are ready")
        publish_bundle(tmp_path, "tiny", 2)
        for victim in workers_of(running):
            os.kill(victim, signal.SIGKILL)
            running.log.next_with("2 of 2 workers are ready")
        assert classify(running.client).json()["version"] == 1


def test_a_version_that_is_not_whole_keeps_no_worker_from_being_replaced(tmp_path: Path) -> None:
    make_bundle(tmp_path)
    with server(tmp_path, workers=2, shutdown_delay_s=0, watch=0.1) as running:
        running.log.next_with("2 of 2 workers are ready")
        (tmp_path / "tiny" / "2").mkdir()
        (victim, _) = workers_of(running)
        os.kill(victim, signal.SIGKILL)
        running.log.next_with("2 of 2 workers are ready")
        assert classify(running.client).json()["version"] == 1


def test_workers_end_with_their_supervisor(models_dir: Path) -> None:
    with server(models_dir, default_model="tiny", workers=2, shutdown_delay_s=0) as running:
        running.log.next_with("2 of 2 workers are ready")
        workers = workers_of(running)
        running.process.kill()
        running.process.wait(TIMEOUT_S)
        wait_until(lambda: not any(map(lives, workers)))


def test_a_worker_whose_inference_hangs_is_replaced(tmp_path: Path) -> None:
    make_bundle(tmp_path, "slow", 1, Design(work=10_000_000))
    # The deadline would stop it: it counts as hanging before that.
    limits = {"request_timeout_s": TIMEOUT_S, "hang_seconds": 1, "drain_seconds": 0}
    with server(tmp_path, workers=2, shutdown_delay_s=0, max_batch_size=1, **limits) as running:
        running.log.next_with("2 of 2 workers are ready")
        workers = workers_of(running)
        # It is cut off with its worker, or told so before.
        with suppress(httpx.TransportError):
            assert classify(running.client).status_code in (500, 503, 504)
        running.log.next_with("2 of 2 workers are ready")
        assert len(workers_of(running) - workers) == 1
        wait_until(lambda: len(workers_of(running)) == 2)
        # Black is no work: the one that hung does not answer any more.
        assert [classify(running.client, 0).status_code for _ in range(4)] == [200] * 4
        running.process.send_signal(signal.SIGTERM)
        running.end()
        assert running.process.returncode == 0


def test_a_second_signal_ends_all_of_them_at_once(tmp_path: Path) -> None:
    make_bundle(tmp_path, "slow", 1, Design(work=10_000_000))
    with (
        server(tmp_path, workers=2, shutdown_delay_s=0, max_batch_size=1) as running,
        ThreadPoolExecutor(1) as pool,
    ):
        running.log.next_with("2 of 2 workers are ready")
        workers = workers_of(running)
        slow = pool.submit(classify, running.client)
        read = 'limbeck_stage_seconds_count{model="slow",stage="read"}'
        wait_until(lambda: metric(running.client, read) == 1)
        running.process.send_signal(signal.SIGTERM)
        wait_until(lambda: len(workers_of(running)) == 1)  # the one without work has ended
        running.process.send_signal(signal.SIGTERM)
        running.end()
        assert running.process.returncode == 3
        assert slow.exception() is not None or slow.result().status_code == 500
    assert not any(map(lives, workers))
