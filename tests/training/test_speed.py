import pytest
import torch
from torch import Tensor, nn

from tests.training.small_networks import Linear
from training.speed import Passes, Speed, duration, measured


class _Scores(nn.Module):
    """A model that gives no gradients."""

    def forward(self, images: Tensor) -> Tensor:
        return images.detach().flatten(1)[:, :5]


def test_passes_add_up_and_cost_what_was_measured() -> None:
    both = Passes(gradients=3) + Passes(gradients=1, forwards=10)
    assert both == Passes(4, 10)
    assert Speed(forward_s=0.5, gradient_s=2.0).seconds(both) == 13


def test_a_model_without_gradients_is_measured_forwards() -> None:
    images, labels = torch.rand(20, 1, 8, 8), torch.zeros(20, dtype=torch.int64)
    speed = measured(_Scores(), images, labels, differentiable=False)
    assert speed.forward_s > 0 and speed.gradient_s == 0
    assert measured(Linear(), images, labels).gradient_s > 0
    with pytest.raises(RuntimeError, match="grad"):
        measured(_Scores(), images, labels)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.01, "1 s"), (42.4, "42 s"), (100, "2 min"), (4200, "70 min"), (9000, "2.5 h")],
)
def test_durations_for_people(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
