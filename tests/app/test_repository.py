"""What is served follows the disk; over HTTP and under load see `tests/e2e/test_repository.py`."""

import asyncio
import errno
import shutil
from pathlib import Path

import pytest

from app.catalog import LoadOptions
from app.errors import BundleRefused, UnknownModel
from app.main import build_service
from app.repository import Repository
from app.service import Service
from app.settings import Settings
from tests.bundles import make_bundle, replace_file, rewrite_manifest


@pytest.fixture
def service(tmp_path: Path, settings: Settings) -> Service:
    make_bundle(tmp_path, "tiny", 1)
    return build_service(
        settings.model_copy(update={"models_dir": tmp_path, "default_model": "tiny"})
    )


@pytest.fixture
def repository(tmp_path: Path, service: Service) -> Repository:
    return Repository(service, tmp_path, LoadOptions("cpu", 1, 2))


def keys(service: Service) -> list[str]:
    return [model.key for model in service.catalog.models]


def test_what_has_not_changed_is_the_same_model(
    tmp_path: Path, service: Service, repository: Repository
) -> None:
    first = service.catalog.find("tiny@1")
    make_bundle(tmp_path, "tiny", 2)
    asyncio.run(repository.load("tiny"))
    assert keys(service) == ["tiny@1", "tiny@2"]
    assert service.catalog.find("tiny@1") is first


def test_a_version_broken_in_place_serves_on_as_it_was(
    tmp_path: Path, service: Service, repository: Repository
) -> None:
    first = service.catalog.find("tiny@1")
    rewrite_manifest(tmp_path / "tiny" / "1", labels=["a", "b", "c", "d"])
    with pytest.raises(BundleRefused, match=r"^tiny/1/classifier\.onnx: its output has the shape"):
        asyncio.run(repository.load("tiny"))
    assert service.catalog.find("tiny") is first
    (entry,) = asyncio.run(repository.index())
    assert (entry.ready, entry.reason) == (True, repository.failures[0].reason)


def test_what_was_refused_at_the_start_is_told_until_it_is_whole(
    tmp_path: Path, settings: Settings
) -> None:
    make_bundle(tmp_path, "tiny", 1)
    (tmp_path / "tiny" / "2").mkdir()
    service = build_service(settings.model_copy(update={"models_dir": tmp_path}))
    repository = Repository(service, tmp_path, LoadOptions("cpu", 1, 2))
    assert keys(service) == ["tiny@1"]
    assert [failure.version for failure in repository.failures] == ["2"]
    (tmp_path / "tiny" / "2").rmdir()
    make_bundle(tmp_path, "tiny", 2)
    asyncio.run(repository.load("tiny"))
    assert keys(service) == ["tiny@1", "tiny@2"]
    assert repository.failures == []


def test_of_a_new_bundle_what_is_whole_is_served(
    tmp_path: Path, service: Service, repository: Repository
) -> None:
    make_bundle(tmp_path, "new", 1)
    replace_file(make_bundle(tmp_path, "new", 2), "purifier.onnx", b"no graph")
    make_bundle(tmp_path, "new", 3)
    with pytest.raises(BundleRefused, match="onnxruntime refuses the graph"):
        asyncio.run(repository.load("new"))
    assert keys(service) == ["new@1", "new@3", "tiny@1"]
    assert [failure.version for failure in repository.failures] == ["2"]


def test_a_bundle_that_is_on_no_disk_any_more_goes(
    tmp_path: Path, service: Service, repository: Repository
) -> None:
    make_bundle(tmp_path, "other", 1)

    async def scenario() -> None:
        shutil.rmtree(tmp_path / "tiny")
        await repository.load("other")
        assert keys(service) == ["other@1", "tiny@1"]
        with pytest.raises(UnknownModel):
            await repository.load("tiny")
        assert keys(service) == ["other@1"]

    asyncio.run(scenario())


@pytest.mark.parametrize("gone", ["bundles", "folder"])
def test_a_volume_that_is_not_mounted_unloads_nothing(
    tmp_path: Path, service: Service, repository: Repository, gone: str
) -> None:
    first = service.catalog.find("tiny")
    shutil.rmtree(tmp_path)
    if gone == "bundles":
        tmp_path.mkdir()
    with pytest.raises(UnknownModel):
        asyncio.run(repository.load("tiny"))
    assert service.catalog.find("tiny") is first


def test_a_bundle_that_cannot_be_read_is_not_unloaded(
    tmp_path: Path, service: Service, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("os.listdir", denied)  # whoever runs the tests may be allowed everything
    with pytest.raises(BundleRefused, match="tiny: cannot be read: Permission denied"):
        asyncio.run(repository.load("tiny"))
    assert keys(service) == ["tiny@1"]


@pytest.mark.parametrize("file", ["purifier.onnx", "classifier.onnx"])
def test_a_file_changed_behind_its_manifest_is_told(
    tmp_path: Path, service: Service, repository: Repository, file: str
) -> None:
    path = tmp_path / "tiny" / "1" / file
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(BundleRefused, match=rf"^tiny/1/{file}: has SHA-256 .* bundle\.json says"):
        asyncio.run(repository.load("tiny"))
    assert keys(service) == ["tiny@1"]
    path.write_bytes(whole)
    asyncio.run(repository.load("tiny"))
    assert repository.failures == []


@pytest.mark.parametrize("name", ["../tiny", "..", "", ".", "tiny/1", "tiny\n", "Tiny", "a" * 65])
def test_an_impossible_name_is_unknown(tmp_path: Path, repository: Repository, name: str) -> None:
    for change in (repository.load, repository.unload):
        with pytest.raises(UnknownModel):
            asyncio.run(change(name))
    assert repository.failures == []
