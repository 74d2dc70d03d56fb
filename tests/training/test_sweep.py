import pytest

from training.attacks import Norm
from training.sweep import epsilon_grid


@pytest.mark.parametrize(
    ("epsilon", "norm", "shape", "largest"),
    [
        (0.3, "linf", (1, 28, 28), 1.0),
        (8 / 255, "linf", (3, 32, 32), 1.0),
        (0.9, "linf", (1, 28, 28), 1.0),
        (2.0, "l2", (1, 28, 28), 28.0),
    ],
)
def test_the_grid_runs_from_nothing_over_the_headline_to_any_image(
    epsilon: float, norm: Norm, shape: tuple[int, ...], largest: float
) -> None:
    grid = epsilon_grid(epsilon, norm, shape)
    assert grid[0] == 0 and grid[-1] == largest
    assert list(grid) == sorted(set(grid))
    assert any(point == pytest.approx(epsilon, abs=1e-6) for point in grid)
    assert 8 <= len(grid) <= 16
