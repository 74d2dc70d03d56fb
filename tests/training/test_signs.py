from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.signs import SIGNS, draw_sign, main


@pytest.mark.parametrize(("height", "width"), [(32, 32), (28, 48), (96, 64)])
@pytest.mark.parametrize("sign", SIGNS)
def test_a_sign_stands_in_the_middle_before_a_backdrop(sign: str, height: int, width: int) -> None:
    pixels = draw_sign(sign, height=height, width=width)
    assert pixels.shape == (height, width, 3) and pixels.dtype == np.uint8
    sky, ground = pixels[0, 0].astype(int), pixels[-1, -1].astype(int)
    assert sky[2] > sky[0] and sky.sum() > ground.sum()
    middle = pixels[height // 2, width // 2].astype(int)
    assert np.abs(middle - pixels[height // 2, 0]).max() > 40


def test_signs_differ_from_each_other() -> None:
    drawn = np.stack([draw_sign(sign) for sign in SIGNS]).reshape(len(SIGNS), -1).astype(float)
    distances = np.abs(drawn[:, None] - drawn[None]).mean(axis=2)
    assert distances[~np.eye(len(SIGNS), dtype=bool)].min() > 10


def test_an_unknown_sign_is_refused() -> None:
    with pytest.raises(ValueError, match="one of 12, 13, 14, 17, 38, got '99'"):
        draw_sign("99")


def test_the_command_draws_into_a_file(tmp_path: Path) -> None:
    main([str(tmp_path / "docs" / "sign.png"), "--sign", "17", "--size", "40"])
    with Image.open(tmp_path / "docs" / "sign.png") as picture:
        assert np.array_equal(np.asarray(picture), draw_sign("17", height=40, width=40))
