"""Models that come and go, before a real server process."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.schemas import Models, RepositoryEntry
from tests.bundles import Design, make_bundle, publish_bundle, rewrite_manifest
from tests.images import PGM_TYPE, pgm
from tests.server_process import TIMEOUT_S, Server, resident_mib, server

KEY = "admin-key"
ADMIN = {"X-API-Key": KEY}
# The grey test image is called by another name in each version, so that an answer tells its model.
LABELS = {1: ("a1", "grey1", "c1"), 2: ("a2", "grey2", "c2"), 3: ("a3", "grey3", "c3")}


@contextmanager
def serving(models_dir: Path, **settings: object) -> Iterator[Server]:
    """A server that ends well."""
    with server(models_dir, admin_key=KEY, shutdown_delay_s=0, **settings) as own:
        try:
            yield own
        finally:
            own.process.terminate()
        assert own.process.wait(TIMEOUT_S) == 0


def change(client: httpx.Client, action: str, name: str = "tiny") -> httpx.Response:
    return client.post(f"/v2/repository/models/{name}/{action}", headers=ADMIN)


def classify(client: httpx.Client, selector: str = "tiny") -> httpx.Response:
    return client.post(f"/classify?model={selector}", content=pgm(102), headers=PGM_TYPE)


def until(condition: Callable[[], bool]) -> None:
    """Ask again until it is so."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline


def models(client: httpx.Client) -> Models:
    return Models.model_validate_json(client.get("/models").content)


def index(client: httpx.Client) -> dict[str, RepositoryEntry]:
    listed = client.post("/v2/repository/index", headers=ADMIN).json()
    entries = [RepositoryEntry.model_validate(entry) for entry in listed]
    return {f"{entry.name}@{entry.version}": entry for entry in entries}


class Load:
    """Clients that ask without a pause, and keep every answer."""

    def __init__(self, client: httpx.Client, clients: int = 4) -> None:
        self._client = client
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(clients)
        self.answers: list[tuple[int, object, object]] = []
        self._running = [self._threads.submit(self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        while not self._stop.is_set():
            answer = classify(self._client)
            body = answer.json()
            self.answers.append((answer.status_code, body.get("version"), body.get("label")))

    def served(self, version: int) -> bool:
        return any(found == version for _, found, _ in list(self.answers))

    def end(self) -> None:
        self._stop.set()
        for running in self._running:
            running.result()
        self._threads.shutdown()


@contextmanager
def load(client: httpx.Client) -> Iterator[Load]:
    clients = Load(client)
    try:
        yield clients
    finally:
        clients.end()


def test_new_versions_are_swapped_in_under_load_without_a_failed_request(tmp_path: Path) -> None:
    make_bundle(tmp_path, design=Design(labels=LABELS[1]))
    with serving(tmp_path) as own:
        with load(own.client) as clients:
            until(lambda: clients.served(1))
            for version in (2, 3):
                publish_bundle(tmp_path, version=version, design=Design(labels=LABELS[version]))
                assert change(own.client, "load").status_code == 200
                assert classify(own.client).json()["version"] == version
                until(lambda version=version: clients.served(version))  # type: ignore[misc]
            # Back again: the version that is served is taken away under the requests.
            shutil.rmtree(tmp_path / "tiny" / "3")
            assert change(own.client, "load").status_code == 200
            before = len(clients.answers)
            until(lambda: len(clients.answers) > before + 20)
        assert {status for status, _, _ in clients.answers} == {200}
        assert {(version, label) for _, version, label in clients.answers} == {
            (version, labels[1]) for version, labels in LABELS.items()
        }
        assert classify(own.client).json()["version"] == 2
        assert classify(own.client, "tiny@1").json()["version"] == 1
        assert classify(own.client, "tiny@3").status_code == 404


def test_a_version_replaced_in_place_is_swapped_under_load(tmp_path: Path) -> None:
    make_bundle(tmp_path, design=Design(labels=LABELS[1]))
    with serving(tmp_path) as own:
        with load(own.client) as clients:
            until(lambda: clients.served(1))
            for number in range(5):
                labels = tuple(f"{label}-{number}" for label in LABELS[1])
                rewrite_manifest(tmp_path / "tiny" / "1", labels=labels)
                assert change(own.client, "load").status_code == 200
                assert classify(own.client).json()["label"] == labels[1]
        assert {status for status, _, _ in clients.answers} == {200}
        text = own.client.get("/metrics").text
        assert text.count("limbeck_model_info{") == 1
        assert 'limbeck_model_loads_total{model="tiny",result="loaded"} 5.0' in text


def test_a_broken_version_is_refused_and_the_old_one_serves_on(tmp_path: Path) -> None:
    make_bundle(tmp_path)
    with serving(tmp_path) as own:
        folder = publish_bundle(tmp_path, version=2)
        (folder / "classifier.onnx").write_bytes(b"changed")
        with load(own.client) as clients:
            refused = change(own.client, "load")
            assert (refused.status_code, refused.json()["code"]) == (422, "bundle_refused")
            reason = refused.json()["detail"]
            assert reason.startswith("tiny/2/classifier.onnx: has SHA-256")
            until(lambda: clients.served(1))
        assert {(status, version) for status, version, _ in clients.answers} == {(200, 1)}
        (failure,) = models(own.client).failures
        assert (failure.name, failure.version, failure.reason) == ("tiny", "2", reason)
        entries = index(own.client)
        assert (entries["tiny@1"].state, entries["tiny@1"].reason) == ("READY", "")
        assert (entries["tiny@2"].state, entries["tiny@2"].reason) == ("UNAVAILABLE", reason)
        counted = 'limbeck_model_loads_total{model="tiny",result="refused"} 1.0'
        assert counted in own.client.get("/metrics").text
        # Repaired, it is served and no failure any more.
        shutil.rmtree(folder)
        publish_bundle(tmp_path, version=2)
        assert change(own.client, "load").status_code == 200
        assert models(own.client).failures == []
        assert classify(own.client).json()["version"] == 2
    assert f"refused tiny@2: {reason}" in [json.loads(line)["message"] for line in own.log.rest()]


def test_what_was_accepted_is_answered_though_its_model_is_unloaded(tmp_path: Path) -> None:
    make_bundle(tmp_path, "slow", 1, Design(work=20_000))
    make_bundle(tmp_path, "tiny")
    with serving(tmp_path, default_model="slow", max_batch_size=1) as own:
        with ThreadPoolExecutor(3) as threads:
            accepted = [threads.submit(classify, own.client, "slow") for _ in range(3)]
            read = 'limbeck_stage_seconds_count{model="slow",stage="read"} 3.0'
            until(lambda: read in own.client.get("/metrics").text)
            assert change(own.client, "unload", "slow").status_code == 200
            for selector in ("slow", "slow@1", ""):  # it was the default, and stays it
                answer = classify(own.client, selector)
                assert (answer.status_code, answer.json()["code"]) == (404, "unknown_model")
            assert not all(future.done() for future in accepted)
            assert [future.result().status_code for future in accepted] == [200] * 3
        until(lambda: 'limbeck_queue_depth{model="slow"}' not in own.client.get("/metrics").text)
        assert 'limbeck_model_info{model="slow"' not in own.client.get("/metrics").text
        assert 'limbeck_model_info{model="tiny"' in own.client.get("/metrics").text
        assert models(own.client).default == "slow"
        assert own.client.get("/models/slow").status_code == 404
        assert change(own.client, "unload", "slow").status_code == 404
        assert index(own.client)["slow@1"].state == "UNAVAILABLE"
        assert own.client.get("/health/ready").status_code == 200
        assert change(own.client, "load", "slow").status_code == 200
        assert classify(own.client, "").json()["model"] == "slow"


def test_the_folder_is_followed(tmp_path: Path) -> None:
    make_bundle(tmp_path, design=Design(labels=LABELS[1]))
    with serving(tmp_path, watch=0.05) as own:

        def served(*keys: str) -> bool:
            listed = models(own.client).models
            return [f"{m.name}@{v.version}" for m in listed for v in m.versions] == list(keys)

        with load(own.client) as clients:
            publish_bundle(tmp_path, version=2, design=Design(labels=LABELS[2]))
            until(lambda: clients.served(2))
            publish_bundle(tmp_path, "other")
            until(lambda: served("other@1", "tiny@1", "tiny@2"))
            broken = publish_bundle(tmp_path, version=3)
            (broken / "purifier.onnx").write_bytes(b"changed")
            until(lambda: [f.version for f in models(own.client).failures] == ["3"])
            shutil.rmtree(broken)
            until(lambda: models(own.client).failures == [])
            shutil.rmtree(tmp_path / "tiny" / "2")
            until(lambda: served("other@1", "tiny@1"))
        assert {status for status, _, _ in clients.answers} == {200}
        # An order outlasts the folder, until the folder changes.
        assert change(own.client, "unload", "other").status_code == 200
        publish_bundle(tmp_path, "third")
        until(lambda: served("third@1", "tiny@1"))
        rewrite_manifest(tmp_path / "other" / "1", created="2025-01-01T00:00:00Z")
        until(lambda: served("other@1", "third@1", "tiny@1"))


def test_a_folder_that_is_not_watched_is_not_followed(tmp_path: Path) -> None:
    make_bundle(tmp_path)
    with serving(tmp_path) as own:
        publish_bundle(tmp_path, version=2)
        assert index(own.client)["tiny@2"].state == "UNAVAILABLE"
        assert classify(own.client).json()["version"] == 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux' /proc")
def test_memory_is_back_at_its_level_after_50_reloads(tmp_path: Path) -> None:
    ballast_mib = 16
    folder = make_bundle(tmp_path, design=Design(ballast_mib=ballast_mib))
    with serving(tmp_path) as own:
        classify(own.client)
        before = resident_mib(own.process)
        for number in range(50):
            rewrite_manifest(folder, created=f"2024-01-01T00:00:{number:02}Z")
            assert change(own.client, "load").status_code == 200
            assert classify(own.client).status_code == 200
        # The old one is freed behind the answer. Half a model would be a leak.
        until(lambda: resident_mib(own.process) < before + ballast_mib / 2)
