"""Purifier and classifier of a bundle from the files that the service runs."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from app.bundle import (
    CLASSIFIER_FILE,
    PREPROCESS_FILE,
    PURIFIER_FILE,
    BundleError,
    ClassifierSpec,
    Manifest,
    read_verified,
)
from training.data import Split, to_unit
from training.export import INPUT_NAME, OUTPUT_NAMES
from training.rebuilding import (
    CHECKED_IMAGES,
    Model,
    check_same,
    rebuilt_classifier,
    rebuilt_purifier,
)
from training.served_classifier import ServedClassifier, ServedGraph, StandIn

# Of the classifiers that recipes make; one that was brought has its own in the manifest.
_OWN = ClassifierSpec(input=INPUT_NAME, output=OUTPUT_NAMES["classifier"], gives="logits")


class ServedNetwork(nn.Module):
    """A network as the service runs it: by onnxruntime, and without gradients.

    Args:
        run: images (N, C, H, W) in [0, 1] to what the network gives, on the images' device.
        sha256: of its file, so that kept results are bound to that.
        reason: why it has no gradients, for messages.
    """

    digest: Tensor

    def __init__(self, run: Model, sha256: str, reason: str = "") -> None:
        super().__init__()
        self.reason = reason
        self._run = run
        digest = bytearray(bytes.fromhex(sha256))
        self.register_buffer("digest", torch.frombuffer(digest, dtype=torch.uint8))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """What the network gives for the images; no gradient flows back from it."""
        return self._run(images)


def served_networks(bundle_dir: Path, manifest: Manifest) -> dict[str, nn.Module]:
    """Both under the names that the weights have them under, to count with.

    Raises:
        BundleError: a file was changed, or onnxruntime refuses it.
    """
    purifier = _served_purifier(bundle_dir, manifest)
    classifier = served_classifier(bundle_dir, manifest)
    return {
        "student": ServedNetwork(purifier.outputs, purifier.sha256),
        "classifier": ServedNetwork(classifier.logits, classifier.sha256),
    }


def rebuilt_networks(
    bundle_dir: Path, manifest: Manifest, test: Split, surrogate: nn.Module | None
) -> dict[str, nn.Module]:
    """Both in PyTorch, to attack.

    What has no gradients is left to onnxruntime: a classifier with those of its surrogate, if there
    is one, anything else as a `ServedNetwork`.

    Args:
        bundle_dir: the bundle.
        manifest: of the bundle.
        test: images on which both must give what they give in onnxruntime.
        surrogate: of the classifier.

    Raises:
        BundleError: a file was changed, or onnxruntime refuses it.
        ParityError: a network gives something else in PyTorch.
    """
    purifier = _served_purifier(bundle_dir, manifest)
    classifier = served_classifier(bundle_dir, manifest)
    sample = test.sample(CHECKED_IMAGES, seed=0)
    pixels = to_unit(sample.images)
    student, obstacles = rebuilt_purifier(PURIFIER_FILE, purifier, pixels)
    if student is None:
        reason = _reason(PURIFIER_FILE, obstacles)
        student = ServedNetwork(purifier.outputs, purifier.sha256, reason)
    network, obstacles = rebuilt_classifier(
        CLASSIFIER_FILE, classifier, manifest.input, pixels, sample.labels
    )
    if network is not None:
        check_same(
            f"{PURIFIER_FILE} before {CLASSIFIER_FILE}",
            lambda images: classifier.logits(purifier.outputs(images)),
            nn.Sequential(student, network),
            pixels,
            classifier.spec.gives,
        )
    elif surrogate is not None:
        network = StandIn(classifier, surrogate)
    else:
        reason = f"{_reason(CLASSIFIER_FILE, obstacles)}, and the weights have no surrogate of it"
        network = ServedNetwork(classifier.logits, classifier.sha256, reason)
    return {"student": student, "classifier": network}


def without_gradients(networks: Mapping[str, nn.Module]) -> str:
    """Why attacks have no gradients through them; nothing if they have."""
    served = (network for network in networks.values() if isinstance(network, ServedNetwork))
    return "; ".join(network.reason for network in served)


def served_classifier(bundle_dir: Path, manifest: Manifest) -> ServedClassifier:
    """The bundle's classifier as the service runs it.

    Raises:
        BundleError: a file was changed, or onnxruntime refuses it.
    """
    content = read_verified(bundle_dir, manifest, CLASSIFIER_FILE)
    preprocess = None
    if PREPROCESS_FILE in manifest.files:
        preprocess = read_verified(bundle_dir, manifest, PREPROCESS_FILE)
    try:
        return ServedClassifier(content, preprocess, manifest.classifier or _OWN)
    except ValueError as error:
        raise BundleError(f"{bundle_dir / CLASSIFIER_FILE}: {error}") from error


def _served_purifier(bundle_dir: Path, manifest: Manifest) -> ServedGraph:
    content = read_verified(bundle_dir, manifest, PURIFIER_FILE)
    try:
        return ServedGraph(content, INPUT_NAME, OUTPUT_NAMES["purifier"])
    except ValueError as error:
        raise BundleError(f"{bundle_dir / PURIFIER_FILE}: {error}") from error


def _reason(file: str, obstacles: tuple[str, ...]) -> str:
    return f"{file} cannot be differentiated (operators {', '.join(obstacles)})"
