import json
from pathlib import Path

import pytest

from app.bundle import MANIFEST_FILE, BundleError, digest, read_manifest, read_verified
from tests.bundles import make_bundle, rewrite_manifest


def test_a_bundle_is_read_back(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    manifest = read_manifest(folder)
    assert (manifest.name, manifest.version, manifest.input.shape) == ("tiny", 1, (1, 8, 8))
    content = read_verified(folder, manifest, "purifier.onnx")
    assert digest(content) == manifest.files["purifier.onnx"]


def test_a_newer_schema_is_refused_before_anything_else(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    rewrite_manifest(folder, schema_version=99, labels=None)
    with pytest.raises(BundleError, match="schema version 99; this program reads up to 1"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"name": "../evil"}, "name"),
        ({"version": 0}, "version"),
        ({"labels": ["one"]}, "labels"),
        ({"unknown": 1}, "unknown"),
        ({"files": {}}, "files lists no classifier.onnx, purifier.onnx"),
        ({"files": {"../x": {"sha256": "0" * 64, "bytes": 1}}}, "plain name"),
        ({"shift_threshold_bits": 2}, "shift_threshold_bits"),
    ],
)
def test_a_senseless_manifest_is_refused_with_the_place(
    tmp_path: Path, changes: dict[str, object], place: str
) -> None:
    folder = make_bundle(tmp_path)
    rewrite_manifest(folder, **changes)
    with pytest.raises(BundleError, match=place) as refused:
        read_manifest(folder)
    assert str(folder / MANIFEST_FILE) in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff"])
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST_FILE).write_bytes(content)
    with pytest.raises(BundleError, match=MANIFEST_FILE):
        read_manifest(tmp_path)


def test_a_file_that_is_not_listed_or_not_there_is_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    manifest = read_manifest(folder)
    with pytest.raises(BundleError, match=f"not listed in {MANIFEST_FILE}"):
        read_verified(folder, manifest, "other.bin")
    (folder / "purifier.onnx").unlink()
    with pytest.raises(BundleError, match="No such file"):
        read_verified(folder, manifest, "purifier.onnx")


def test_the_manifest_is_plain_json(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path)
    assert json.loads((folder / MANIFEST_FILE).read_bytes())["schema_version"] == 1
