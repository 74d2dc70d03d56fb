"""The weights file of a bundle: all networks of a run, so that it can be judged and trained on."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from app.bundle import (
    CLASSIFIER_FILE,
    WEIGHTS_FILE,
    BundleError,
    InputSpec,
    Manifest,
    read_verified,
)
from training.onnx_networks import served_classifier
from training.recipes import Recipe, recipe_of, shape_of
from training.run import build_classifier, build_purifier
from training.served_classifier import ImportedClassifier, StandIn
from training.stages import STAND_IN


def weights_of(networks: Mapping[str, nn.Module]) -> bytes:
    """The networks' parameters and buffers as `<network>.<tensor>`, as a safetensors file."""
    return save(
        {
            f"{key}.{name}": tensor.detach().cpu().contiguous()
            for key, network in networks.items()
            for name, tensor in network.state_dict().items()
        }
    )


def load_networks(
    path: Path, recipe: Recipe, spec: InputSpec, classes: int
) -> dict[str, nn.Module]:
    """The networks of a file that holds `weights_of` them, in eval mode.

    Args:
        path: the weights file.
        recipe: that the networks were trained by; it knows their shapes.
        spec: the images they take.
        classes: number of labels.

    Raises:
        BundleError: the file is unreadable, or its tensors do not fit the recipe.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{path}: cannot be read: {error}") from error
    by_network: dict[str, dict[str, Tensor]] = {}
    for full_name, tensor in tensors.items():
        key, _, name = full_name.partition(".")
        by_network.setdefault(key, {})[name] = tensor
    networks = {key: _untrained(key, recipe, spec, classes) for key in by_network}
    for key, network in networks.items():
        try:
            network.load_state_dict(by_network[key])
        except RuntimeError as error:
            raise BundleError(f"{path}: {key} does not fit its recipe: {error}") from error
        network.eval()
    return networks


def trained_networks(bundle_dir: Path, manifest: Manifest) -> dict[str, nn.Module]:
    """All networks of a bundle's weights file, in eval mode.

    Raises:
        BundleError: the file was changed, or does not fit.
    """
    read_verified(bundle_dir, manifest, WEIGHTS_FILE)
    recipe = recipe_of(manifest.provenance.settings)
    return load_networks(bundle_dir / WEIGHTS_FILE, recipe, manifest.input, len(manifest.labels))


def networks_of(bundle_dir: Path, manifest: Manifest) -> dict[str, nn.Module]:
    """All networks of a bundle, in eval mode; a classifier that was brought comes from its file.

    Raises:
        BundleError: a file was changed, or does not fit.
    """
    networks = trained_networks(bundle_dir, manifest)
    if manifest.classifier is not None:
        surrogate = networks.pop(STAND_IN, None)
        networks["classifier"] = _brought(bundle_dir, manifest, surrogate)
    return networks


def _brought(bundle_dir: Path, manifest: Manifest, surrogate: nn.Module | None) -> nn.Module:
    """The bundle's own classifier file, behind its preprocessing."""
    served = served_classifier(bundle_dir, manifest)
    if surrogate is not None:
        return StandIn(served, surrogate)
    try:
        return ImportedClassifier(served.content, served.preprocess, served.spec, manifest.input)
    except ValueError as error:
        raise BundleError(f"{bundle_dir / CLASSIFIER_FILE}: {error}") from error


def _untrained(key: str, recipe: Recipe, spec: InputSpec, classes: int) -> nn.Module:
    """The network that a key of the weights file stands for."""
    if key.endswith("classifier"):
        return build_classifier(recipe, spec.channels, classes)
    return build_purifier(shape_of(recipe, key), spec)
