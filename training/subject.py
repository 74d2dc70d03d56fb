"""What an evaluation is about: a bundle's networks and the images they are judged on."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from app.bundle import WEIGHTS_FILE, BundleError, Manifest, read_manifest
from training.adversary import Progress
from training.attacks import Norm
from training.data import Dataset, Split, load_split, name_of, to_unit
from training.detection import shift_threshold, shifts
from training.onnx_networks import rebuilt_networks, served_networks
from training.recipes import Recipe, recipe_of
from training.stages import STAND_IN
from training.state import State, digest_of
from training.trial import Protocol, Trial
from training.unseen import unseen_radius
from training.validation import split_validation
from training.weights import networks_of, trained_networks

Source = Literal["weights", "onnx", "served"]


@dataclass(frozen=True)
class Subject:
    """A bundle's networks with the images they are judged on.

    Attributes:
        networks: all that the bundle's files hold, in eval mode.
        test: all test images; clean accuracies are measured on them.
        manifest: of the bundle.
        recipe: that it was trained by.
        folder: the data set.
        train: its training images, if they have been read already.
        source: which of the bundle's files purifier and classifier come from.
        has_weights: whether the file with all the other networks was there.
    """

    networks: Mapping[str, nn.Module]
    test: Split
    manifest: Manifest
    recipe: Recipe
    folder: Path
    train: Split | None = None
    source: Source = "weights"
    has_weights: bool = True

    @property
    def may_resist(self) -> bool:
        """Whether the classifier may withstand attacks by its own training.

        Of one that was brought it is not known.
        """
        return self.manifest.classifier is not None or self.recipe.classifier.attack is not None

    @property
    def data(self) -> str:
        """Name of the data set."""
        return name_of(self.folder)

    @cached_property
    def data_sha256(self) -> str:
        """Digest of the test images and their labels, as a card names it."""
        return digest_of(self.test.images, self.test.labels)

    @cached_property
    def validation(self) -> Split:
        """Clean images that choose the threshold of the alarm; read when they are asked for."""
        manifest, recipe, train = self.manifest, self.recipe, self.train
        if train is None:
            train = load_split(self.folder, "train", manifest.input, manifest.labels)
        return split_validation(train, recipe.validation_fraction, recipe.seed)[1]


def load_subject(
    bundle_dir: Path, data: Path, source: Source = "weights", dataset: Dataset | None = None
) -> Subject:
    """Read a bundle's networks and the test images that they are judged on.

    Args:
        bundle_dir: `models/<name>/<version>`.
        data: the data set.
        source: where purifier and classifier come from: from the `weights`; from the two `onnx`
            files, rebuilt in PyTorch so that attacks have gradients, with all other networks from
            the weights if they are there; or from the same files as they are `served`, to count
            with, and no other networks.
        dataset: what `data` holds, if it has been read already.

    Raises:
        BundleError: the bundle is damaged, or has no weights where these are asked for.
        DataError: the data set does not fit.
        ParityError: a network gives something else in PyTorch than in onnxruntime.
    """
    manifest = read_manifest(bundle_dir)
    recipe = recipe_of(manifest.provenance.settings)
    if dataset is None:
        test = load_split(data, "test", manifest.input, manifest.labels)
    else:
        test = dataset.test
    weights = bundle_dir / WEIGHTS_FILE
    has_weights = weights.exists()
    if source == "served":
        networks = served_networks(bundle_dir, manifest)
    elif source == "onnx":
        networks = trained_networks(bundle_dir, manifest) if has_weights else {}
        networks |= rebuilt_networks(bundle_dir, manifest, test, networks.pop(STAND_IN, None))
    elif has_weights:
        networks = networks_of(bundle_dir, manifest)
    else:
        raise BundleError(f"{weights}: is not there; --from onnx does without it")
    train = None if dataset is None else dataset.train
    return Subject(networks, test, manifest, recipe, data, train, source, has_weights)


def protocol_of(
    subject: Subject,
    *,
    n: int = 1000,
    seed: int = 0,
    epsilon: float | None = None,
    norm: Norm = "linf",
    quick: bool = False,
) -> Protocol:
    """How the subject is attacked: by default as its recipe was trained for.

    In L2, which no recipe trains for, the default is the radius of the unseen threat.

    Raises:
        ValueError: the recipe has no such radius, and none is given; or it is more than an image
            can be changed.
    """
    make = Protocol.shortened if quick else Protocol
    unseen_l2 = unseen_radius(subject.recipe, subject.manifest.input.channels)
    if epsilon is None:
        epsilon = unseen_l2 if norm == "l2" else subject.recipe.epsilon
        if epsilon == 0:
            raise ValueError("the bundle's recipe has unseen_l2=0: give --norm l2 an --epsilon")
    if norm == "linf" and epsilon > 1:
        raise ValueError(f"--epsilon is in [0, 1] pixel units: 8/255 is 0.0314; got {epsilon:g}")
    return make(
        epsilon=epsilon,
        norm=norm,
        n=min(n, len(subject.test)),
        seed=seed,
        unseen_l2=unseen_l2,
    )


def chosen_of(subject: Subject, protocol: Protocol) -> Split:
    """The test images that are attacked: a random choice by the seed, in random order."""
    return subject.test.sample(protocol.n, protocol.seed)


def trial_of(
    subject: Subject, protocol: Protocol, state: State, device: torch.device, progress: Progress
) -> Trial:
    """The trial on the chosen test images."""
    chosen = chosen_of(subject, protocol)
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
