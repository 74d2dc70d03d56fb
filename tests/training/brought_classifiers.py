"""Classifiers as users have them, trained in a moment, and images that they know.

The images have one bright half, which half being the class, as those of `tiny_runs`.
"""

import warnings
from functools import cache
from pathlib import Path

import numpy as np
import torch
from onnx import helper
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from app.bundle import InputSpec
from tests.training.onnx_models import model_of
from tests.training.tiny_runs import CLASSES
from training.data import Dataset, Split, to_unit

LARGE = InputSpec(channels=3, height=64, width=64)


def halves(count: int, spec: InputSpec, seed: int) -> Split:
    """Images with one bright half; in colour the first channel is brighter than the others."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(CLASSES)
    shape = (count, *spec.shape)
    images = torch.randint(0, 60, shape, generator=generator, dtype=torch.uint8)
    for row, label in enumerate(labels.tolist()):
        half = images[row, :1] if spec.channels == 3 else images[row]
        view = half.transpose(1, 2) if label == 2 else half
        middle = view.shape[2] // 2
        view[:, :, slice(middle) if label != 1 else slice(middle, None)] += 150
    names = tuple(f"{CLASSES[label]}/{row:03d}.png" for row, label in enumerate(labels.tolist()))
    return Split(images, labels, names, CLASSES)


def dataset_of(spec: InputSpec) -> Dataset:
    """Sixty training images of a size."""
    return Dataset("halves", halves(60, spec, 1), halves(36, spec, 2), spec, "0" * 64)


class WithNormAndDropout(nn.Module):
    """A small network of what PyTorch's users build classifiers from."""

    def __init__(self, channels: int = 1, classes: int = len(CLASSES)) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.3),
            nn.AdaptiveAvgPool2d(2),
        )
        self.head = nn.Linear(16, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K)."""
        features = self.layers(images)
        logits: Tensor = self.head(features.view(features.size(0), -1))
        return logits


def made() -> WithNormAndDropout:
    """What a user's factory gives: untrained."""
    return WithNormAndDropout()


def made_in_colour() -> WithNormAndDropout:
    """The same for colour images."""
    return WithNormAndDropout(3)


def number() -> int:
    """A factory that gives no network."""
    return 3


def demanding(classes: int) -> WithNormAndDropout:
    """A factory that wants an argument."""
    return WithNormAndDropout(classes=classes)


def failing() -> WithNormAndDropout:
    """A factory that fails in a way of its own."""
    raise OSError("no licence file")


class OfOneSize(WithNormAndDropout):
    """It insists on the size of its images, as some published networks do."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K)."""
        assert images.shape[2] == 224
        return super().forward(images)


@cache
def trained(spec: InputSpec, scale: float = 1.0) -> WithNormAndDropout:
    """The network, trained on images from 0 to `scale`."""
    torch.manual_seed(0)
    network = WithNormAndDropout(spec.channels)
    split = dataset_of(spec).train
    images = to_unit(split.images) * scale
    optimizer = torch.optim.Adam(network.parameters(), 0.05)
    for _ in range(25):
        optimizer.zero_grad()
        functional.cross_entropy(network(images), split.labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network.eval()


def write_images(split: Split, folder: Path) -> None:
    """One split of a data set as files."""
    for image, name in zip(split.images, split.names, strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(path)


@cache
def by_torch_export(*, single: bool = False) -> bytes:
    """A classifier of 64x64 colour images from 0 to 255, as PyTorch exports it by default."""
    network, images = trained(LARGE, 255.0), torch.zeros(1 if single else 2, *LARGE.shape)
    shapes = None if single else ({0: torch.export.Dim("batch")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about its own dependencies
        program = torch.onnx.export(
            network, (images,), dynamic_shapes=shapes, dynamo=True, verbose=False
        )
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content


def by_hand(*, rounds: bool) -> bytes:
    """A classifier of 8x8 halves; one that rounds every pixel on its way has no gradient."""
    weights = np.zeros((64, 3), np.float32)
    image = np.arange(64).reshape(8, 8)
    for label, half in enumerate((image[:, :4], image[:, 4:], image[:4])):
        weights[half.flatten(), label] = 1
    nodes = [
        helper.make_node("Flatten", ["x"], ["rows"]),
        helper.make_node("Mul", ["rows", "levels"], ["high"]),
        helper.make_node("Floor" if rounds else "Identity", ["high"], ["steps"]),
        helper.make_node("MatMul", ["steps", "weights"], ["y"]),
    ]
    return model_of(nodes, ("N", 1, 8, 8), {"levels": np.float32(10), "weights": weights})
