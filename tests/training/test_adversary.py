import pytest
import torch

from tests.training.small_networks import Linear
from training.adversary import is_correct, pgd_cascade
from training.attacks import Norm, cross_entropy_loss, margin_loss


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.01), ("l2", 0.08)])
def test_the_cascade_finds_the_optimum_on_a_linear_model(norm: Norm, epsilon: float) -> None:
    torch.manual_seed(0)
    model = Linear()
    # Away from the borders, where the optimum is known in closed form.
    images = torch.rand(64, 1, 8, 8) * 0.4 + 0.3
    labels = model(images).argmax(1)
    labels[:4] = (labels[:4] + 1) % 5
    found = pgd_cascade(
        model,
        images,
        labels,
        epsilon=epsilon,
        losses=(cross_entropy_loss, margin_loss),
        steps=20,
        restarts=3,
        norm=norm,
        batch_size=17,
    )
    expected = model.standing(images, labels, epsilon, norm)
    assert 5 < int(expected.sum()) < 59
    assert int((found.robust != expected).sum()) <= 2  # on the boundary itself
    assert torch.equal(found.robust, is_correct(model, found.images, labels))
    order = float("inf") if norm == "linf" else 2.0
    moved = torch.linalg.vector_norm((found.images - images).flatten(1), order, dim=1)
    assert float(moved.max()) <= epsilon * 1.0001
    assert torch.equal(found.images[:4], images[:4])


def test_the_same_seed_gives_the_same_attack() -> None:
    torch.manual_seed(0)
    model, images = Linear(), torch.rand(20, 1, 8, 8)
    labels = model(images).argmax(1)
    first, second = (
        pgd_cascade(
            model, images, labels, epsilon=0.05, losses=(margin_loss,), steps=3, restarts=2, seed=7
        )
        for _ in range(2)
    )
    assert torch.equal(first.images, second.images)
