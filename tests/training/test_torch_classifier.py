import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.training.brought_classifiers import dataset_of, trained
from tests.training.onnx_models import computed
from tests.training.tiny_runs import SPEC
from training.classifier_file import ClassifierError
from training.classifier_options import ClassifierOptions
from training.data import to_unit
from training.torch_classifier import exported_classifier


class Spectrum(nn.Module):
    """What the exporter of TorchScript has no operator for."""

    def forward(self, images: Tensor) -> Tensor:
        """Three numbers for each image (N, 1, H, W)."""
        values: Tensor = torch.linalg.svdvals(images[:, 0])
        return values[:, :3]


FACTORY = "tests.training.brought_classifiers:made"
IMAGES = to_unit(dataset_of(SPEC).train.images[:32])


def exported(source: str, weights: Path | None = None, **given: Any) -> tuple[str, bytes]:
    options = ClassifierOptions(source=source, weights=weights, **given)
    return exported_classifier(options, SPEC, IMAGES)


@pytest.mark.parametrize("kind", ["plain", "checkpoint", "safetensors"])
def test_a_module_is_exported_with_its_weights(tmp_path: Path, kind: str) -> None:
    network = trained(SPEC)
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    if kind == "safetensors":
        save_file(network.state_dict(), path)
    else:
        state = network.state_dict()
        torch.save(state if kind == "plain" else {"epoch": 3, "state_dict": state}, path)
    name, content = exported(FACTORY, path)
    assert name == FACTORY
    with torch.no_grad():
        expected = network(IMAGES[:5])
    np.testing.assert_allclose(computed(content, IMAGES[:5].numpy()), expected, atol=1e-4)


def test_torchscript_is_exported(tmp_path: Path) -> None:
    network = trained(SPEC)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is no longer developed
        script = torch.jit.trace(network, IMAGES[:1])  # type: ignore[no-untyped-call]
    folder = tmp_path / "runs at 12:30"
    folder.mkdir()
    script.save(folder / "net.pt")
    name, content = exported(str(folder / "net.pt"))
    assert name == "net.pt"
    with torch.no_grad():
        expected = network(IMAGES)
    np.testing.assert_allclose(computed(content, IMAGES.numpy()), expected, atol=1e-4)


def test_a_graph_that_cannot_be_exported_is_named_and_not_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is no longer developed
        script = torch.jit.trace(Spectrum(), IMAGES[:1])  # type: ignore[no-untyped-call]
    script.save(tmp_path / "net.pt")
    with pytest.raises(ClassifierError, match=r"net\.pt: cannot be exported: "):
        exported(str(tmp_path / "net.pt"))
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("no.such.package:made", "cannot be made: No module named 'no'"),
        (FACTORY.replace("made", "unmade"), "cannot be made: .*no attribute 'unmade'"),
        (FACTORY.replace("made", "number"), "gives int, no torch.nn.Module"),
        (FACTORY.replace("made", "demanding"), "cannot be made: TypeError: .*'classes'"),
        (FACTORY.replace("made", "failing"), "cannot be made: OSError: no licence file"),
        (":made", ":made: a module is named as package.module:factory"),
        ("nowhere.pt", "nowhere.pt: is no .onnx file, no package.module:factory"),
    ],
)
def test_what_cannot_be_loaded_is_named(source: str, reason: str) -> None:
    with pytest.raises(ClassifierError, match=reason):
        exported(source)


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    torch.save({"head.weight": torch.zeros(3, 16)}, tmp_path / "w.pt")
    with pytest.raises(ClassifierError, match=r"w.pt: does not fit: .*Missing key"):
        exported(FACTORY, tmp_path / "w.pt")
    torch.save([1, 2], tmp_path / "w.pt")
    with pytest.raises(ClassifierError, match=r"w.pt: holds list, no state dict"):
        exported(FACTORY, tmp_path / "w.pt")
    (tmp_path / "w.pt").write_bytes(b"no weights")
    with pytest.raises(ClassifierError, match=r"w.pt: cannot be read as a state dict"):
        exported(FACTORY, tmp_path / "w.pt")


def test_images_of_the_wrong_kind_are_named() -> None:
    colour = SPEC.model_copy(update={"channels": 3})
    options = ClassifierOptions(source=FACTORY)
    with pytest.raises(ClassifierError, match=r"does not take images of 8x8x3 .*--size and --grey"):
        exported_classifier(options, colour, IMAGES.expand(-1, 3, -1, -1))
    with pytest.raises(ClassifierError, match=r"take images of 8x8x1 \(AssertionError\); --size"):
        exported(FACTORY.replace("made", "OfOneSize"))
    with pytest.raises(ClassifierError, match="take --layout chw"):
        exported(FACTORY, layout="hwc")


def test_an_output_of_another_shape_is_named() -> None:
    with pytest.raises(ClassifierError, match=r"gives \(2, 1, 8, 8\) for two images"):
        exported("torch.nn:Identity")
