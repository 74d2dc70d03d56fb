"""What an evaluation is about: a bundle's networks and the images they are judged on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from app.bundle import Manifest, read_manifest
from training.adversary import Progress
from training.data import Split, load_split, name_of, split_validation, to_unit
from training.detection import shift_threshold, shifts
from training.recipes import Recipe, recipe_of
from training.state import State
from training.trial import Protocol, Trial
from training.weights import networks_of


@dataclass(frozen=True)
class Subject:
    """A bundle's networks with the images they are judged on.

    Attributes:
        networks: all that the bundle's weights hold, in eval mode.
        test: all test images; clean accuracies are measured on them.
        validation: clean images that choose the threshold of the alarm.
        manifest: of the bundle.
        recipe: that it was trained by.
        data: name of the data set.
    """

    networks: Mapping[str, nn.Module]
    test: Split
    validation: Split
    manifest: Manifest
    recipe: Recipe
    data: str


def load_subject(bundle_dir: Path, data: Path) -> Subject:
    """Read a bundle's networks and the images that they are judged on."""
    manifest = read_manifest(bundle_dir)
    recipe = recipe_of(manifest.provenance.settings)
    networks = networks_of(bundle_dir, manifest)
    test = load_split(data, "test", manifest.input, manifest.labels)
    train = load_split(data, "train", manifest.input, manifest.labels)
    _, validation = split_validation(train, recipe.validation_fraction, recipe.seed)
    return Subject(networks, test, validation, manifest, recipe, name_of(data))


def trial_of(
    subject: Subject, protocol: Protocol, state: State, device: torch.device, progress: Progress
) -> Trial:
    """The trial on a random choice of the test images."""
    generator = torch.Generator().manual_seed(protocol.seed)
    order = torch.randperm(len(subject.test), generator=generator)[: protocol.n]
    chosen = subject.test.subset(order)
    return Trial(
        subject.networks,
        to_unit(chosen.images).to(device),
        chosen.labels.to(device),
        protocol,
        state,
        progress,
    )


def threshold_of(subject: Subject, trial: Trial) -> float:
    """The shift that 1 % of the clean validation images exceed."""
    return shift_threshold(shifts_of(trial, to_unit(subject.validation.images)))


def shifts_of(trial: Trial, images: Tensor) -> Tensor:
    """The student's shift of each image, in bits (N,)."""
    images = images.to(trial.images.device)
    return shifts(trial.networks["student"], trial.networks["classifier"], images).cpu()
