"""A whole round with real servers and a tiny bundle."""

import os
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.bundles import alone, newest
from benchmarks.load import Window
from benchmarks.results import Point, Results
from benchmarks.rounds import Bench, Plan
from benchmarks.rows import SERVERS, Server
from benchmarks.workloads import Workload
from tests.bundles import SPEC, Design, make_bundle
from tests.images import encoded

ROOT = Path(__file__).parents[2]

SERVES_ANOTHER_MODEL = Server(
    "other",
    "a server that answers something else",
    ("-m", "benchmarks.servers.floor", "--port", "{port}"),
    {"raw": "/raw"},
)


def greys() -> list[bytes]:
    """Three images that the tests' classifier tells apart."""
    return [encoded(Image.new("L", (SPEC.width, SPEC.height), level)) for level in (0, 150, 255)]


def plan(models_dir: Path, *servers: Server) -> Plan:
    return Plan(
        servers=servers,
        with_limit=True,
        workloads=(Workload("png", "grey", "tiny", "image/png", greys, exact=True),),
        concurrency=(1, 4),
        rounds=1,
        window=Window(0.2),
        with_broken=True,
        models_dir=models_dir,
        cache=models_dir,
        peers=sys.executable,
    )


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    make_bundle(tmp_path, "tiny", 1, Design())
    make_bundle(tmp_path, "tiny", 2, Design())
    return tmp_path


def test_a_round_measures_every_row(models_dir: Path, tmp_path: Path) -> None:
    servers = [server for server in SERVERS if server.package is None]
    results = Results()
    core = max(os.sched_getaffinity(0))
    Bench(plan(models_dir, *servers, SERVES_ANOTHER_MODEL), core, tmp_path, results).run_round(0)

    assert set(results.failures) == {"other"}, "its answers are not the model's"
    assert {point[1:3] for point in results.loads} == {
        ("floor", "raw"),
        ("floor", "multipart"),
        ("limbeck", "raw"),
        ("limbeck", "multipart"),
        ("plain", "multipart"),
    }
    for server in servers:
        for body in server.paths:
            for connections in (1, 4):
                found = results.load(Point("png", server.name, body, connections), 0)
                assert found is not None and found.rate > 0 and found.errors == 0
    assert [answer["label"] for answer in results.limits["png"][0].answers] == [
        "dark",
        "bright",
        "bright",
    ]
    assert set(results.memory_mib) == {"floor", "limbeck", "plain"} <= set(results.ready_s)
    broken = results.beside_broken[Point("png", "limbeck", "raw", 32)][0]
    assert broken.rate > 0 and broken.errors == 0


def test_only_the_newest_version_is_served(models_dir: Path) -> None:
    bundle = newest(models_dir, "tiny")
    assert bundle is not None and bundle.name == "2"
    with alone(bundle) as folder:
        assert newest(folder, "tiny") == folder / "tiny" / "2"
        assert len(list(folder.glob("*/*"))) == 1
    assert newest(models_dir, "absent") is None


def test_the_peers_compute_with_the_versions_that_the_service_is_locked_to() -> None:
    """Otherwise rows would differ for reasons that are not the server's."""
    pinned = dict(
        re.findall(r"^([\w-]+)(?:\[\w+\])?==([\w.]+)", _read("benchmarks/requirements.txt"), re.M)
    )
    locked: dict[str, str] = {}
    for name in ("serve.txt", "serve-cpu.txt"):
        locked |= dict(re.findall(r"^([\w-]+)==([\w.]+)", _read(f"requirements/{name}"), re.M))
    shared = pinned.keys() & locked.keys()
    assert {"numpy", "pillow", "onnxruntime", "fastapi", "uvicorn"} <= shared
    assert {name: pinned[name] for name in shared} == {name: locked[name] for name in shared}


def _read(path: str) -> str:
    return (ROOT / path).read_text()
