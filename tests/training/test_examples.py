import numpy as np
import pytest
import torch

from app.bundle import InputSpec
from training.digits import draw_digit
from training.examples import example_images, label_indices
from training.signs import draw_sign

DIGITS = [str(digit) for digit in range(10)]


def test_grey_examples_are_drawn_digits_with_their_labels() -> None:
    images, labels = example_images(InputSpec(channels=1, height=28, width=28), DIGITS)
    assert images.shape == (len(labels), 1, 28, 28) and images.dtype == torch.float32
    for image, label in zip(images, labels, strict=True):
        assert label is not None
        drawn = torch.from_numpy(draw_digit(int(label), seed=int(label)).copy())
        assert torch.equal((image[0] * 255).round().byte(), drawn)


def test_colour_examples_fit_an_oblong_input() -> None:
    images, labels = example_images(InputSpec(channels=3, height=32, width=48), DIGITS)
    assert images.shape == (len(labels), 3, 32, 48)
    assert float(images.min()) >= 0 and 0.5 < float(images.max()) <= 1
    assert all(float(image.std()) > 0.05 for image in images)


@pytest.mark.parametrize("digits", [1, 2, 5])
def test_a_classifier_of_traffic_signs_is_shown_drawn_ones(digits: int) -> None:
    classes = [f"{number:0{digits}d}" for number in range(43)]
    images, labels = example_images(InputSpec(channels=3, height=32, width=48), classes)
    assert images.shape == (len(labels), 3, 32, 48)
    for image, label in zip(images, labels, strict=True):
        assert label in classes
        drawn = draw_sign(str(int(label)), height=32, width=48)
        assert np.array_equal((image * 255).round().byte().permute(1, 2, 0).numpy(), drawn)


def test_an_image_without_a_label_keeps_the_classifiers_answer() -> None:
    answers = torch.tensor([2, 2, 2])
    found = label_indices(["b", None, "unknown"], ["a", "b", "c"], answers)
    assert found.tolist() == [1, 2, 2]
