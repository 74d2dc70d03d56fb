"""The commands that put a server under stress, each for a moment, against a real one."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import fuzz, overload, soak
from benchmarks.limbeck import Limbeck, bundle_named, limbeck
from benchmarks.mutation import seed_files, upload
from benchmarks.processes import ServerFailed
from benchmarks.workloads import http_request
from tests.bundles import Design, make_bundle
from tests.images import pgm


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Limbeck]:
    bundle = make_bundle(tmp_path_factory.mktemp("models"), "poisoned", 1, Design(poison=True))
    with limbeck(bundle, sys.executable, {"max_queue_size": 32}) as running:
        yield running


def test_an_upload_can_be_made_again_and_no_two_are_alike() -> None:
    files = seed_files()
    made = [upload(files, 7, number) for number in range(200)]
    assert made == [upload(files, 7, number) for number in range(200)]
    assert len(set(made)) > 190
    assert upload(files, 8, 0) != made[0]


def test_a_fuzz_counts_what_it_meets(server: Limbeck) -> None:
    findings = fuzz.fuzz(server, 200, seed=1)
    assert sum(findings.answers.values()) == 200
    assert {status for status, _ in findings.answers} <= {200, 400, 413, 415, 422, 500}
    assert findings.answers[422, "corrupt_image"] > 10
    assert findings.warm_mib > 10 and findings.end_mib > 10
    text = "\n".join(fuzz.report(findings, 1))
    assert "| 422 corrupt_image |" in text and "200 uploads, seed 1" in text


def test_a_fuzz_does_not_pass_what_fails(server: Limbeck, monkeypatch: pytest.MonkeyPatch) -> None:
    # White images are answered with 500 by this bundle.
    monkeypatch.setattr(fuzz, "upload", lambda files, seed, number: pgm(255))
    findings = fuzz.fuzz(server, 10, seed=1)
    assert not findings.passed
    assert any("500 inference_failed" in what for _, what in findings.bad)


def test_a_soak_meets_only_what_it_expects_and_leaves_nothing_open(server: Limbeck) -> None:
    soaked = soak.soak(server, 2.0)
    assert not soaked.unexpected
    assert 0 < soaked.files_after <= soaked.files_before
    for kind in soak.kinds():
        assert any(name == kind.name for name, _ in soaked.answers), kind.name
    assert "| unexpected | 0 | 0 |" in soak.report(soaked, 2.0)


@pytest.mark.parametrize(
    ("end_mib", "files_after", "unexpected", "passed"),
    [(102.0, 9, 0, True), (104.0, 9, 0, False), (102.0, 10, 0, False), (102.0, 9, 1, False)],
)
def test_a_soak_does_not_pass_a_leak_or_an_unexpected_answer(
    end_mib: float, files_after: int, unexpected: int, passed: bool
) -> None:
    soaked = soak.Soaked(
        memory_mib=[100.0, 100.0, end_mib], files_before=9, files_after=files_after
    )
    if unexpected:
        soaked.unexpected["classify PNG", "500"] += unexpected
    assert soaked.passed == passed


def test_overload_is_measured(server: Limbeck) -> None:
    requests = [http_request("/classify", pgm(level), "image/png", "raw") for level in (10, 102)]
    result = overload.measure(server, requests, seconds=1.0, factor=4.0)
    assert result.capacity > 0 and result.goodput > 0
    assert set(result.offered.latencies_s) <= {200, 503}
    assert result.offered.lost == 0 and result.probe_failures == 0
    assert all(result.probes_s[path] for path in overload.PROBES)
    assert result.peak_mib >= result.before_mib > 10
    assert any("goodput" in line for line in overload.report(result))


def test_a_bundle_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match="no bundle absent"):
        bundle_named(tmp_path, "absent")
