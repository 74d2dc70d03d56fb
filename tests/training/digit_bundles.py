"""A bundle of networks that were really trained, on drawn digits, in seconds."""

import shutil
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from app.bundle import InputSpec, Provenance
from training.data import load_dataset, to_unit
from training.publication import write_bundle
from training.recipe_book import PAPER
from training.recipes import overridden, settings_of
from training.run import build_classifier, build_purifier

SPEC = InputSpec(channels=1, height=28, width=28)
RECIPE = overridden(
    PAPER,
    [
        "classifier.widths=[8, 16]",
        "classifier.depths=[0, 0]",
        "classifier.dropout=0",
        "teacher.widths=[8]",
        "teacher.depths=[0]",
        "student.widths=[4]",
        "student.depths=[0]",
        "validation_fraction=0.2",
    ],
)


def without_weights(bundle: Path, folder: Path) -> Path:
    """A copy of the bundle with nothing but what the service needs."""
    return Path(shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns("weights.*")))


def trained_networks(data: Path) -> dict[str, nn.Module]:
    """A classifier and purifiers, none of which ever saw an attack."""
    split = load_dataset(data).train
    images, labels = to_unit(split.images), split.labels
    found: dict[str, nn.Module] = {}
    for seed, prefix in enumerate(("", "surrogate_")):
        torch.manual_seed(seed)
        network = build_classifier(RECIPE, 1, len(split.class_names))
        found[f"{prefix}classifier"] = _train(network, images, labels, 100)
        name = "surrogate_purifier" if prefix else "student"
        found[name] = _train(build_purifier(RECIPE.student, SPEC), images, images, 80)
    found["normal_teacher"] = _train(build_purifier(RECIPE.teacher, SPEC), images, images, 80)
    return found


def written_bundle(networks: dict[str, nn.Module], data: Path, models: Path) -> Path:
    """The bundle of the networks, not evaluated yet."""
    dataset = load_dataset(data)
    provenance = Provenance(
        command="a test",
        recipe=RECIPE.name,
        settings=settings_of(RECIPE),
        seed=RECIPE.seed,
        git_commit=None,
        data_name=dataset.name,
        data_sha256=dataset.sha256,
        versions={},
        machine="a test",
        stage_seconds={},
    )
    return write_bundle(
        models,
        name="digits",
        labels=dataset.train.class_names,
        spec=SPEC,
        networks=networks,
        images=to_unit(dataset.test.images[:32]),
        provenance=provenance,
    )


def _train(network: nn.Module, images: Tensor, targets: Tensor, steps: int) -> nn.Module:
    """Fit the targets: labels by cross-entropy, images by squared distance."""
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    for batch in torch.randint(len(images), (steps, 64)):
        outputs = network(images[batch])
        of_labels = targets.dtype == torch.int64
        loss_of = functional.cross_entropy if of_labels else functional.mse_loss
        optimizer.zero_grad()
        torch.autograd.backward(loss_of(outputs, targets[batch]))
        optimizer.step()
    return network.eval()
