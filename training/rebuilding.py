"""The networks of ONNX files in PyTorch: with gradients, and only if they give what is served."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from app.bundle import InputSpec
from training.checks import zero_gradient_share
from training.export import PARITY_BATCHES, ParityError, difference_of
from training.onnx_importer import ImportedGraph, UnsupportedGraph
from training.served_classifier import ImportedClassifier, ServedClassifier, ServedGraph

PARITY_TOLERANCE = 1e-3
# Of a data set's images, so many are enough to see what a network is.
CHECKED_IMAGES = 256
_PROBED = 64

Model = Callable[[Tensor], Tensor]
Network = TypeVar("Network", bound=nn.Module)


def rebuilt_classifier(
    name: str, served: ServedClassifier, images: InputSpec, pixels: Tensor, labels: Tensor
) -> tuple[nn.Module | None, tuple[str, ...]]:
    """The classifier in PyTorch, or what stands in its way: operators without gradients.

    A network that gives something else is none: attacks through it would not be attacks on it.

    Args:
        name: for messages.
        served: the classifier as the service runs it.
        images: that it is shown.
        pixels: real images (N, C, H, W) in [0, 1], in random order.
        labels: (N,).
    """
    network, obstacles = _built(
        lambda: ImportedClassifier(served.content, served.preprocess, served.spec, images), pixels
    )
    if network is None:
        return None, obstacles
    if zero_gradient_share(network, pixels[:_PROBED], labels[:_PROBED]) > 0.5:
        return None, ("that have a gradient of zero",)
    try:
        check_same(name, served.logits, network, pixels, served.spec.gives)
    except ParityError:
        half = " in float16: export float32" if network.graph.computes_in_float16 else ""
        return None, (f"that come out otherwise in PyTorch{half}",)
    return network, ()


def rebuilt_purifier(
    name: str, served: ServedGraph, pixels: Tensor
) -> tuple[nn.Module | None, tuple[str, ...]]:
    """The purifier in PyTorch, or what stands in its way: operators without gradients.

    Raises:
        ParityError: in PyTorch it gives something else.
    """
    network, obstacles = _built(lambda: ImportedGraph(served.content), pixels)
    if network is not None:
        check_same(name, served.outputs, network, pixels)
    return network, obstacles


def check_same(
    name: str, served: Model, network: Model, pixels: Tensor, gives: str = "logits"
) -> None:
    """Refuse a network that differs from what is served, in batches of several sizes.

    Args:
        name: of the file, for the message.
        served: images to outputs, by onnxruntime.
        network: the same in PyTorch.
        pixels: real images (N, C, H, W) in [0, 1].
        gives: what the file holds. Logits that were made of `probabilities` are compared as these,
            for logits may differ by a number that is the same for all classes.

    Raises:
        ParityError: by more than 1e-3, in units of the largest output if that is above 1.
    """
    largest = 0.0
    for size in PARITY_BATCHES:
        batch = pixels[:size]
        with torch.no_grad():
            expected, found = served(batch), network(batch)
        if gives == "probabilities":
            expected, found = expected.softmax(1), found.softmax(1)
        largest = max(largest, difference_of(expected, found))
    if largest > PARITY_TOLERANCE:
        raise ParityError(
            f"{name}: in PyTorch it differs from onnxruntime by {largest:.3g}, more than "
            f"{PARITY_TOLERANCE:g}; attacks through it would not be attacks on it"
        )


def _built(build: Callable[[], Network], pixels: Tensor) -> tuple[Network | None, tuple[str, ...]]:
    """The network, once it has taken an image, or the operators that stand in its way."""
    try:
        network = build().eval().requires_grad_(False)
        with torch.no_grad():
            network(pixels[:1])
    except UnsupportedGraph as error:
        return None, error.operators
    except (RuntimeError, TypeError, LookupError) as error:
        # onnxruntime does run it: a way to use an operator that the importer has not met.
        return None, (f"that fail in PyTorch: {error}",)
    return network, ()
