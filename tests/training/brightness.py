"""Images for the bundles of `tests.bundles`, whose classifier sees mean brightness alone."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.bundles import LABELS
from training.oracle import Pixels

# Some of each class, near the borders at a quarter and at three quarters of the range and far off.
MEANS = {"dark": (5, 30, 50), "grey": (80, 110, 128, 160), "bright": (200, 225, 250)}
COUNT = sum(map(len, MEANS.values()))


def brightness_images(seed: int = 0) -> tuple[Pixels, tuple[str, ...]]:
    """Grey 8x8 images of all classes with a little noise, (10, 1, 8, 8), and their labels."""
    generator = np.random.default_rng(seed)
    means = np.array([mean for label in LABELS for mean in MEANS[label]])
    noise = generator.integers(-5, 6, (COUNT, 1, 8, 8))
    labels = tuple(label for label in LABELS for _ in MEANS[label])
    return (means[:, None, None, None] + noise).clip(0, 255).astype(np.uint8), labels


def write_brightness_dataset(folder: Path) -> None:
    """The images as the test split of a data set; an attacker needs no other."""
    images, labels = brightness_images()
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / "test" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(folder / "test" / label / f"{row}.png")
