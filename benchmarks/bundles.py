"""The bundles that are served while speed is measured.

The main rows use networks of a realistic size with random weights: they measure speed, and their
answers mean nothing. They are exported by the project's own training code, which needs torch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from app.bundle import InputSpec
from app.folders import find_bundles

if TYPE_CHECKING:
    from torch import Tensor

    from training.networks import Classifier

SPEC = InputSpec(channels=3, height=32, width=32)
CLASSES = 43
NAME = "random"
# Multiply-adds for one image: 17.1 and 34.8 million.
_PURIFIER = ((32, 64, 96), (2, 2, 1))
_CLASSIFIER = ((32, 64, 256), (2, 3, 2))


def random_bundle(models_dir: Path) -> Path:
    """The folder of a bundle of 17 + 35 million multiply-adds, made if it is not there yet.

    Raises:
        ModuleNotFoundError: it has to be made, and what trains is not installed.
    """
    folder = models_dir / NAME / "1"
    return folder if folder.is_dir() else _make(models_dir)


def _make(models_dir: Path) -> Path:
    import torch

    from app.bundle import Provenance
    from training.networks import Classifier, ConvAutoencoder
    from training.publication import write_bundle

    torch.manual_seed(0)
    purifier = ConvAutoencoder(SPEC.channels, *_PURIFIER)
    classifier = Classifier(SPEC.channels, *_CLASSIFIER, CLASSES)
    # Plain colours with some noise, as different from each other as photographs are.
    images = 0.8 * torch.rand(64, SPEC.channels, 1, 1) + 0.2 * torch.rand(64, *SPEC.shape)
    results = images
    for network in (purifier, classifier):
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None  # the plain mean: one batch settles the statistics
        with torch.no_grad():
            network(results)
            results = network.eval()(results)
    _spread_logits(classifier, results)
    return write_bundle(
        models_dir,
        name=NAME,
        labels=[f"class {number}" for number in range(CLASSES)],
        spec=SPEC,
        networks={"student": purifier, "classifier": classifier},
        images=images,
        version=1,
        provenance=Provenance(
            command="benchmarks",
            recipe="random",
            settings={},
            seed=0,
            git_commit=None,
            data_name="noise",
            data_sha256="0" * 64,
            versions={"torch": torch.__version__},
            machine="any",
            stage_seconds={},
        ),
    )


def _spread_logits(classifier: "Classifier", logits: "Tensor") -> None:
    """Scale the head so that different images get different labels: answers can be compared."""
    import torch

    linear = classifier.head[-1]
    assert isinstance(linear, torch.nn.Linear)
    with torch.no_grad():
        scale = 2 / logits.std(dim=0)
        linear.weight *= scale[:, None]
        linear.bias.copy_((linear.bias - logits.mean(dim=0)) * scale)


def newest(models_dir: Path, name: str) -> Path | None:
    """The folder of a bundle's highest version; None if there is no such bundle."""
    versions = [folder for folder in find_bundles(models_dir) if folder.parent.name == name]
    return versions[-1] if versions else None


@contextmanager
def alone(bundle: Path) -> Iterator[Path]:
    """A models folder that holds this bundle only, so that memory and start are of one bundle."""
    with TemporaryDirectory() as folder:
        models_dir = Path(folder)
        (models_dir / bundle.parent.name).mkdir()
        (models_dir / bundle.parent.name / bundle.name).symlink_to(bundle.resolve())
        yield models_dir
