"""Random changes of training images, drawn from a generator."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from training.recipes import Augmentation


def augment(images: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Images (N, C, H, W) in [0, 1], each moved, turned, scaled, flipped, re-contrasted at random.

    Pixels from beyond the border repeat the border. Where images are neither turned nor scaled they
    move by whole pixels, which keeps them sharp.
    """
    if settings.shift or settings.rotation_degrees or settings.scale:
        images = _affine(images, settings, generator)
    if settings.flip:
        flips = torch.rand(len(images), generator=generator).to(images.device) < 0.5
        images = torch.where(flips[:, None, None, None], images.flip(3), images)
    if settings.contrast:
        factor = 1 + settings.contrast * _uniform(len(images), generator)
        offset = settings.contrast / 2 * _uniform(len(images), generator)
        factor, offset = (
            value.to(images.device)[:, None, None, None] for value in (factor, offset)
        )
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        images = ((images - mean) * factor + mean + offset).clamp(0, 1)
    return images


def _uniform(count: int, generator: torch.Generator) -> Tensor:
    """Numbers between -1 and 1, (count,)."""
    return torch.rand(count, generator=generator) * 2 - 1


def _affine(images: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Rotation, scale and shift in one bilinear resampling."""
    count = len(images)
    angle = math.radians(settings.rotation_degrees) * _uniform(count, generator)
    scale = 1 + settings.scale * _uniform(count, generator)
    matrix = torch.zeros(count, 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = angle.cos() / scale
    matrix[:, 0, 1] = -angle.sin() / scale
    matrix[:, 1, 0] = angle.sin() / scale
    turned = settings.rotation_degrees or settings.scale
    for axis, side in enumerate((images.shape[3], images.shape[2])):
        share = settings.shift * _uniform(count, generator)
        matrix[:, axis, 2] = 2 * (share if turned else (share * side).round() / side)
    grid = functional.affine_grid(matrix.to(images.device), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
