from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from app.bundle import WEIGHTS_FILE, BundleError, Provenance, read_manifest, read_verified
from tests.training.outcomes import whole_manifest
from tests.training.second_device import moved
from tests.training.small_networks import SPEC, digit_images, small_networks
from training.export import ParityError
from training.publication import replace_files, write_bundle
from training.recipe_book import PAPER
from training.recipes import settings_of

PROVENANCE = Provenance(
    command="limbeck-train run paper",
    recipe="paper",
    settings=settings_of(PAPER),
    seed=0,
    git_commit=None,
    data_name="digits",
    data_sha256="0" * 64,
    versions={"torch": "2"},
    machine="a test",
    stage_seconds={"classifier": 1.0},
)


def _write(models: Path, **changes: Any) -> Path:
    purifier, classifier = small_networks()
    arguments: dict[str, Any] = {
        "name": "digits",
        "labels": [str(digit) for digit in range(10)],
        "spec": SPEC,
        "networks": {"student": purifier, "classifier": classifier},
        "images": digit_images(32)[0],
        "provenance": PROVENANCE,
    }
    return write_bundle(models, **{**arguments, **changes})


def test_a_bundle_is_written_whole_and_versions_count_up(tmp_path: Path) -> None:
    first = _write(tmp_path, extra_files={"CARD.md": b"soon"}, shift_threshold_bits=0.25)
    assert first == tmp_path / "digits" / "1"
    manifest = whole_manifest(first)
    assert manifest.labels[7] == "7" and manifest.shift_threshold_bits == 0.25
    assert set(manifest.files) == {
        "purifier.onnx",
        "classifier.onnx",
        "weights.safetensors",
        "CARD.md",
    }
    assert {path.name for path in first.iterdir()} == {*manifest.files, "bundle.json"}

    second = _write(tmp_path)
    assert second.name == "2"
    # Byte for byte the same networks.
    assert (first / "purifier.onnx").read_bytes() == (second / "purifier.onnx").read_bytes()
    with pytest.raises(FileExistsError, match="digits/2"):
        _write(tmp_path, version=2)
    assert _write(tmp_path, version=7).name == "7"
    assert sorted(path.name for path in first.parent.iterdir()) == ["1", "2", "7"]


def test_networks_on_another_device_are_exported(tmp_path: Path) -> None:
    purifier, classifier = map(moved, small_networks())
    whole_manifest(_write(tmp_path, networks={"student": purifier, "classifier": classifier}))
    # They stay there, and it is a device that images on the CPU do not fit.
    with pytest.raises(RuntimeError, match="same device"):
        purifier(digit_images(1)[0])


class _Drifting(nn.Module):
    """A purifier whose copies, one of which is exported, compute something else than it does."""

    def __init__(self, drift: float = 0.04) -> None:
        super().__init__()
        self.purifier = small_networks()[0]
        self.drift = drift
        self.eval()

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Drifting":
        return _Drifting(self.drift / 2)

    def forward(self, images: Tensor) -> Tensor:
        purified: Tensor = self.purifier(images) + self.drift
        return purified


def test_without_parity_nothing_is_written(tmp_path: Path) -> None:
    networks = {"student": _Drifting(), "classifier": small_networks()[1]}
    with pytest.raises(ParityError, match=r"differ by 0\.01"):
        _write(tmp_path, networks=networks)
    assert list(tmp_path.rglob("*")) == []


def test_files_are_replaced_together_with_their_digests(tmp_path: Path) -> None:
    bundle = _write(tmp_path, extra_files={"CARD.md": b"old"})
    graph = (bundle / "purifier.onnx").read_bytes()
    replace_files(bundle, {"CARD.md": b"new", "card.json": b"{}"}, shift_threshold_bits=0.5)
    manifest = read_manifest(bundle)
    assert manifest.shift_threshold_bits == 0.5
    assert read_verified(bundle, manifest, "CARD.md") == b"new"
    assert read_verified(bundle, manifest, "card.json") == b"{}"
    assert read_verified(bundle, manifest, "purifier.onnx") == graph
    assert [path.name for path in bundle.parent.iterdir()] == ["1"]


def test_weights_that_were_taken_out_keep_their_digest(tmp_path: Path) -> None:
    bundle = _write(tmp_path)
    before = read_manifest(bundle).files
    weights = bundle / WEIGHTS_FILE
    content = weights.read_bytes()
    weights.unlink()
    replace_files(bundle, {"CARD.md": b"new"}, shift_threshold_bits=None)
    manifest = read_manifest(bundle)
    assert manifest.files == {**before, "CARD.md": manifest.files["CARD.md"]}
    assert not weights.exists()
    weights.write_bytes(content)
    assert read_verified(bundle, manifest, WEIGHTS_FILE) == content
    (bundle / "purifier.onnx").unlink()
    with pytest.raises(BundleError, match=r"purifier\.onnx: cannot be read"):
        replace_files(bundle, {"CARD.md": b"newer"}, shift_threshold_bits=None)


def test_a_bad_file_name_leaves_the_bundle_as_it_was(tmp_path: Path) -> None:
    bundle = _write(tmp_path)
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    with pytest.raises(ValueError, match="plain name"):
        replace_files(bundle, {"../card.json": b"{}"}, shift_threshold_bits=None)
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
    assert [path.name for path in bundle.parent.iterdir()] == ["1"]
