import pytest
import torch
from torch import Tensor

from tests.training.linear_trials import linear_trial
from tests.training.small_networks import digit_images
from training.corruptions import CORRUPTIONS, corrupted, corruptions_of
from training.trial import Protocol


def _images(channels: int) -> Tensor:
    grey = digit_images(4)[0]
    return grey if channels == 1 else torch.cat([grey, grey.flip(2), 1 - grey], dim=1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_each_severity_spoils_more_and_gives_images_of_8_bits(kind: str, channels: int) -> None:
    images = _images(channels)
    moved = [0.0]
    for severity in (1, 2, 3):
        spoilt = corrupted(images, kind, severity)
        assert spoilt.shape == images.shape and spoilt.dtype == torch.float32
        assert torch.equal((spoilt * 255).round() / 255, spoilt)
        assert torch.equal(spoilt, corrupted(images, kind, severity))
        moved.append(float((spoilt - images).square().mean()))
    assert moved == sorted(set(moved))


def test_noise_has_the_deviation_that_the_card_states() -> None:
    grey = torch.full((1, 1, 200, 200), 0.5)
    noise = corrupted(grey, "gaussian_noise", 1) - grey
    assert float(noise.std()) == pytest.approx(0.08, rel=0.03)
    assert not torch.equal(noise, corrupted(grey, "gaussian_noise", 1, seed=1) - grey)


def test_contrast_keeps_each_channels_mean_and_a_share_of_what_differs() -> None:
    images = _images(3)
    spoilt = corrupted(images, "contrast", 2)
    kept = CORRUPTIONS["contrast"].severities[1]
    means = images.mean(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(spoilt, (images - means) * kept + means, atol=1 / 255, rtol=0)


def test_blur_grows_with_the_image() -> None:
    point = torch.zeros(1, 1, 101, 101)
    point[..., 50, 50] = 1
    reach = int((corrupted(point, "blur", 1)[0, 0, 50] > 0).sum())
    small = int((corrupted(point[..., 25:76, 25:76], "blur", 1)[0, 0, 25] > 0).sum())
    assert small < reach


def test_the_table_has_a_row_for_each_severity_and_starts_unspoilt() -> None:
    found = corruptions_of(linear_trial(Protocol(0.1, corruptions_n=30)))
    assert found.n == 30 and found.clean_bare == found.clean_purified == 1
    assert len(found.points) == 3 * len(CORRUPTIONS)
    assert [point.setting for point in found.points[:3]] == [
        "deviation 0.08",
        "deviation 0.18",
        "deviation 0.38",
    ]
    # The purifier changes nothing here.
    assert all(point.bare == point.purified for point in found.points)
    assert min(point.bare for point in found.points) < 1
