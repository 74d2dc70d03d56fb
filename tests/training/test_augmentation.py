import pytest
import torch
from torch import Tensor

from training.augmentation import augment
from training.recipes import Augmentation

EVERYTHING = Augmentation(shift=0.1, rotation_degrees=15, scale=0.2, flip=True, contrast=0.4)


def augmented(images: Tensor, settings: Augmentation, seed: int = 0) -> Tensor:
    return augment(images, settings, torch.Generator().manual_seed(seed))


def blobs(count: int) -> Tensor:
    """Images with one bright square right of the middle, (N, 1, 21, 21)."""
    images = torch.zeros(count, 1, 21, 21)
    images[:, :, 9:12, 12:15] = 1
    return images


def centres(images: Tensor) -> Tensor:
    """Centre of the light in pixels from the middle, right and down; (N, 2)."""
    places = torch.arange(images.shape[-1]) - (images.shape[-1] - 1) / 2
    light = images.sum(1)
    across = (light.sum(1) * places).sum(1)
    down = (light.sum(2) * places).sum(1)
    return torch.stack([across, down], 1) / light.sum((1, 2))[:, None]


def test_nothing_changes_by_default() -> None:
    images = torch.rand(4, 3, 8, 8)
    assert torch.equal(augmented(images, Augmentation()), images)


def test_the_seed_decides() -> None:
    images = torch.rand(4, 3, 8, 8)
    assert torch.equal(augmented(images, EVERYTHING), augmented(images, EVERYTHING))
    assert not torch.equal(augmented(images, EVERYTHING), augmented(images, EVERYTHING, seed=1))


def test_shape_and_unit_box_are_kept() -> None:
    images = torch.rand(16, 3, 8, 12).round()
    changed = augmented(images, EVERYTHING)
    assert changed.shape == images.shape
    assert float(changed.min()) >= 0 and float(changed.max()) <= 1


def test_a_shift_moves_up_to_its_share_of_the_side() -> None:
    moved = centres(augmented(blobs(200), Augmentation(shift=0.1))) - centres(blobs(1))
    assert float(moved.abs().max()) <= 0.1 * 21 + 1e-3
    assert float(moved.abs().max()) > 0.08 * 21
    assert float(moved.mean(0).abs().max()) < 0.3  # to all sides alike


def test_images_that_are_only_shifted_stay_sharp() -> None:
    images = torch.rand(50, 1, 12, 10)
    changed = augmented(images, Augmentation(shift=0.25))
    padded = torch.nn.functional.pad(images, (2, 2, 3, 3), mode="replicate")
    places = {
        (image, down, right)
        for image in range(50)
        for down in range(7)
        for right in range(5)
        if torch.allclose(
            padded[image, :, down : down + 12, right : right + 10], changed[image], atol=1e-5
        )
    }
    assert {image for image, _, _ in places} == set(range(50))
    assert len({place[1:] for place in places}) > 15


def test_a_rotation_keeps_the_distance_to_the_middle() -> None:
    before, after = (
        centres(blobs(1)),
        centres(augmented(blobs(100), Augmentation(rotation_degrees=30))),
    )
    torch.testing.assert_close(after.norm(dim=1), before.norm().expand(100), atol=0.15, rtol=0)
    angles = torch.atan2(after[:, 1], after[:, 0]).rad2deg()
    assert 25 < float(angles.abs().max()) <= 30.5
    assert float(angles.min()) < 0 < float(angles.max())


def test_a_scale_moves_along_the_line_to_the_middle() -> None:
    after = centres(augmented(blobs(100), Augmentation(scale=0.2)))
    factor = after[:, 0] / centres(blobs(1))[0, 0]
    assert 0.79 <= float(factor.min()) < 0.85
    assert 1.15 < float(factor.max()) <= 1.21
    assert float(after[:, 1].abs().max()) < 0.05


def test_a_flip_mirrors_about_half_of_the_images() -> None:
    images = torch.rand(200, 1, 4, 4)
    changed = augmented(images, Augmentation(flip=True))
    kept = (changed == images).flatten(1).all(1)
    mirrored = (changed == images.flip(3)).flatten(1).all(1)
    assert bool((kept ^ mirrored).all())
    assert 70 < int(mirrored.sum()) < 130


def test_contrast_changes_spread_and_brightness() -> None:
    images = 0.4 + 0.2 * torch.rand(100, 1, 8, 8)
    changed = augmented(images, Augmentation(contrast=0.5))
    spread = changed.flatten(1).std(1) / images.flatten(1).std(1)
    assert 0.5 <= float(spread.min()) < 0.6
    assert 1.4 < float(spread.max()) <= 1.5 + 1e-3
    assert float((changed.mean((1, 2, 3)) - images.mean((1, 2, 3))).abs().max()) > 0.2


def test_what_comes_in_from_outside_repeats_the_border() -> None:
    even = torch.full((8, 1, 8, 8), 0.7)
    settings = Augmentation(shift=0.3, rotation_degrees=40, scale=0.3)
    torch.testing.assert_close(augmented(even, settings), even)


@pytest.mark.parametrize("settings", [Augmentation(contrast=0.5), EVERYTHING])
def test_each_image_is_changed_on_its_own(settings: Augmentation) -> None:
    same = torch.rand(1, 1, 8, 8).expand(4, 1, 8, 8)
    changed = augmented(same, settings)
    assert len({tuple(image.flatten().tolist()) for image in changed}) == 4
