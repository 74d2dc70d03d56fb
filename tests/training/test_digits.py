from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.digits import draw_digit, draw_digits, main, write_digit_dataset


@pytest.mark.parametrize("digit", range(10))
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_digit_is_white_on_black_inside_the_middle(digit: int, seed: int) -> None:
    pixels = draw_digit(digit, seed=seed)
    assert pixels.shape == (28, 28) and pixels.dtype == np.uint8
    assert pixels.max() > 200
    frame = pixels.copy()
    frame[3:25, 3:25] = 0
    assert frame.max() == 0
    rows, columns = np.nonzero(pixels)
    assert abs((rows.min() + rows.max()) / 2 - 13.5) <= 1
    assert abs((columns.min() + columns.max()) / 2 - 13.5) <= 1


def test_digits_differ_from_each_other_and_by_hand() -> None:
    drawn = draw_digits(range(10)).reshape(10, -1).astype(float)
    distances = np.abs(drawn[:, None] - drawn[None]).mean(axis=2)
    assert distances[~np.eye(10, dtype=bool)].min() > 5
    assert not np.array_equal(draw_digit(4, seed=1), draw_digit(4, seed=2))
    assert np.array_equal(draw_digit(4, seed=1), draw_digit(4, seed=1))


def test_an_impossible_digit_is_refused() -> None:
    with pytest.raises(ValueError, match="10"):
        draw_digit(10)


def test_a_data_set_has_both_splits_and_no_image_twice(tmp_path: Path) -> None:
    write_digit_dataset(tmp_path, 4, seed=3)
    train = sorted(tmp_path.glob("train/*/*.png"))
    test = sorted(tmp_path.glob("test/*/*.png"))
    assert len(train) == 40 and len(test) == 20
    contents = {path.read_bytes() for path in train + test}
    assert len(contents) == 60


def test_a_data_set_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    write_digit_dataset(tmp_path / "a", 1, seed=3)
    write_digit_dataset(tmp_path / "b", 1, seed=3)
    for path in (tmp_path / "a").glob("*/*/*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_the_command_draws_into_a_file(tmp_path: Path) -> None:
    main([str(tmp_path / "docs" / "digit.png"), "--digit", "3", "--size", "40"])
    with Image.open(tmp_path / "docs" / "digit.png") as picture:
        assert picture.size == (40, 40)
        assert np.array_equal(np.asarray(picture), draw_digit(3, size=40))
