"""Images for pictures that are published: drawn by the project or free of rights.

A bundle's pictures never show images of the data set that it was trained on.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from app.bundle import InputSpec
from training.digits import draw_digit
from training.signs import draw_sign

# Photographs that scikit-image ships under CC0.
_PHOTOGRAPHS = ("chelsea", "coffee", "rocket")
_DIGITS = (3, 5, 7, 2)
_SIGNS = ("14", "38", "13", "17")
_SIGN_CLASSES = [str(number) for number in range(43)]


def example_images(spec: InputSpec, classes: Sequence[str]) -> tuple[Tensor, list[str | None]]:
    """Example images with their true labels, where the image has one.

    Args:
        spec: the size and the channels of the images.
        classes: labels of the classifier, in its order.

    Returns:
        images: (N, C, H, W), float32 in [0, 1]: digits; for colour inputs traffic signs where the
            classes are the numbers of the German benchmark's, else photographs where scikit-image
            is installed.
        labels: for each image its class, or None for a photograph.
    """
    if spec.channels == 3 and [name.lstrip("0") or "0" for name in classes] == _SIGN_CLASSES:
        drawings = [draw_sign(sign, height=spec.height, width=spec.width) for sign in _SIGNS]
        signs = [_unit_image(drawing) for drawing in drawings]
        return torch.stack(signs), [classes[int(sign)] for sign in _SIGNS]
    photographs = _photographs(spec) if spec.channels == 3 else []
    if photographs:
        return torch.stack(photographs), [None] * len(photographs)
    size = min(spec.height, spec.width)
    canvas = torch.zeros(len(_DIGITS), *spec.shape)
    top, left = (spec.height - size) // 2, (spec.width - size) // 2
    for row, digit in enumerate(_DIGITS):
        drawn = torch.from_numpy(draw_digit(digit, size=size, seed=digit).copy())
        canvas[row, :, top : top + size, left : left + size] = drawn.float() / 255
    return canvas, [str(digit) for digit in _DIGITS]


def _photographs(spec: InputSpec) -> list[Tensor]:
    """The photographs at the size of the input, (3, H, W) each; none without scikit-image."""
    try:
        from skimage import data
    except ImportError:
        return []
    photographs = []
    for name in _PHOTOGRAPHS:
        try:
            pixels = np.asarray(getattr(data, name)())
        except (OSError, ImportError, ConnectionError):
            continue  # an installation may lack the file and have no network to fetch it
        picture = Image.fromarray(pixels).convert("RGB")
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        square = picture.crop((left, top, left + side, top + side))
        small = square.resize((spec.width, spec.height), Image.Resampling.BICUBIC)
        photographs.append(_unit_image(np.array(small)))
    return photographs


def _unit_image(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """Pixels (H, W, 3) as an image (3, H, W) in [0, 1]."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def label_indices(names: Sequence[str | None], labels: Sequence[str], answers: Tensor) -> Tensor:
    """Positions of the names among the labels; the classifier's own answer where it has none."""
    positions = {label: index for index, label in enumerate(labels)}
    found = [
        positions.get(name, int(answer)) if name is not None else int(answer)
        for name, answer in zip(names, answers, strict=True)
    ]
    return torch.tensor(found)
