import io

import pytest
import torch
from PIL import Image

from tests.training.cards import make_card
from tests.training.small_networks import digit_images
from training.plots import (
    Answered,
    Example,
    detection_plot,
    epsilon_plot,
    example_plot,
    training_plot,
)


def _example() -> Example:
    image = digit_images(1)[0][0]
    noisy = (image + 0.3 * torch.rand(image.shape)).clamp(0, 1)
    stages = (Answered(image, "0", 0.99), Answered(noisy, "8", 0.9), Answered(image, "0", 0.8))
    return Example("attack on both", *stages)


_RECORD = {"loss": 1.0, "clean": 0.9, "grey-box": 0.5, "end-to-end": 0.1}
PLOTS = {
    "epsilon": lambda: epsilon_plot(make_card().sweep, 0.3),
    "detection": lambda: detection_plot({"Grey-box": ([0.0, 0.1, 1.0], [0.0, 0.9, 1.0], 0.9)}),
    "examples": lambda: example_plot([_example()] * 4, 0.3),
    "losses alone": lambda: training_plot({"classifier": [{"loss": 2.0}, {"loss": 1.0}]}),
    "training": lambda: training_plot({"classifier": [{"loss": 2.0}], "student": [_RECORD] * 3}),
}


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_a_small_picture_on_white(name: str) -> None:
    content = PLOTS[name]()
    assert 2_000 < len(content) < 100_000
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "PNG"
        pixels = picture.convert("RGB")
    assert min(pixels.size) > 200
    assert pixels.getpixel((1, 1)) == (255, 255, 255)
    assert len(pixels.getcolors(1 << 20) or []) > 10


def test_the_same_figures_give_the_same_bytes() -> None:
    assert PLOTS["epsilon"]() == PLOTS["epsilon"]()
