from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from training.attacks import (
    Norm,
    cross_entropy_loss,
    fgsm,
    input_gradient,
    margin_loss,
    pgd,
    project,
    random_start,
)

Attack = Callable[..., Tensor]
WEIGHTS = torch.randn(16, generator=torch.Generator().manual_seed(1))


def two_classes(images: Tensor) -> Tensor:
    """A linear model: the second logit is w.x, the first is zero; (N, 2)."""
    scores = images.flatten(1) @ WEIGHTS
    return torch.stack([torch.zeros_like(scores), scores], dim=1)


def curved(seed: int = 0) -> nn.Module:
    """A model whose loss has many local maxima."""
    torch.manual_seed(seed)

    class Waves(nn.Module):
        def forward(self, hidden: Tensor) -> Tensor:
            return torch.sin(6 * hidden)

    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), Waves(), nn.Linear(12, 3))
    return network.eval().requires_grad_(False)


def unit_images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


ATTACKS: dict[str, tuple[Attack, Norm, dict[str, object]]] = {
    "fgsm": (fgsm, "linf", {}),
    "fgsm l2": (fgsm, "l2", {"norm": "l2"}),
    "pgd linf": (pgd, "linf", {"steps": 20, "step_size": 0.05}),
    "pgd l2": (pgd, "l2", {"steps": 60, "step_size": 0.05, "norm": "l2"}),
    "pgd margin": (pgd, "linf", {"steps": 20, "step_size": 0.05, "loss": margin_loss}),
    "pgd restarts": (pgd, "linf", {"steps": 20, "step_size": 0.05, "restarts": 3}),
}


def length(perturbation: Tensor, norm: Norm) -> Tensor:
    order = float("inf") if norm == "linf" else 2.0
    lengths: Tensor = torch.linalg.vector_norm(perturbation.flatten(1), order, dim=1)
    return lengths


@pytest.mark.parametrize("name", ATTACKS)
def test_the_optimum_on_a_linear_model_is_found(name: str) -> None:
    attack, norm, options = ATTACKS[name]
    epsilon = 0.2
    images = 0.3 + 0.4 * unit_images(8)  # the ball does not touch the borders of [0, 1]
    direction = WEIGHTS.sign() if norm == "linf" else WEIGHTS / WEIGHTS.norm()
    best = images + epsilon * direction.reshape(1, 1, 4, 4)
    labels = torch.zeros(8, dtype=torch.int64)
    found = attack(two_classes, images, labels, epsilon=epsilon, **options)
    torch.testing.assert_close(found, best, atol=2e-3, rtol=0)
    # Away from the other class, the same attack goes the opposite way.
    found = attack(two_classes, images, labels + 1, epsilon=epsilon, **options)
    torch.testing.assert_close(found, 2 * images - best, atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", ["fgsm", "pgd linf"])
def test_borders_of_the_unit_box_are_part_of_the_optimum(name: str) -> None:
    attack, _, options = ATTACKS[name]
    images = unit_images(8)
    best = (images + 0.3 * WEIGHTS.sign().reshape(1, 1, 4, 4)).clamp(0, 1)
    labels = torch.zeros(8, dtype=torch.int64)
    found = attack(two_classes, images, labels, epsilon=0.3, **options)
    torch.testing.assert_close(found, best, atol=1e-5, rtol=0)


@settings(max_examples=60)
@given(
    name=st.sampled_from(sorted(ATTACKS)),
    epsilon=st.floats(0, 2, width=32),
    seed=st.integers(0, 2**31),
    saturated=st.booleans(),
)
def test_attacks_stay_in_the_ball_and_in_the_unit_box(
    name: str, epsilon: float, seed: int, saturated: bool
) -> None:
    attack, norm, options = ATTACKS[name]
    images = unit_images(4, seed)
    images = images.round() if saturated else images
    labels = torch.tensor([0, 1, 2, 0])
    shortened = {**options, "steps": 3} if "steps" in options else options
    found = attack(curved(), images, labels, epsilon=epsilon, **shortened)
    assert found.shape == images.shape
    assert float(found.min()) >= 0 and float(found.max()) <= 1
    assert float(length(found - images, norm).max()) <= epsilon + 1e-6


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_random_start_lies_in_the_ball(norm: Norm) -> None:
    images = unit_images(50)
    started = random_start(images, 0.3, norm, torch.Generator().manual_seed(0))
    moved = length(started - images, norm)
    assert float(moved.max()) <= 0.3 + 1e-6
    assert float(moved.min()) > 0
    assert float(started.min()) >= 0 and float(started.max()) <= 1


def test_half_of_the_random_starts_are_blocks_of_many_sizes() -> None:
    images = torch.full((400, 3, 12, 8), 0.5)
    moves = random_start(images, 0.3, "linf", torch.Generator().manual_seed(0)) - images
    at_the_edge = (moves.abs() - 0.3).abs().flatten(1).amax(1) < 1e-6
    assert 160 < int(at_the_edge.sum()) < 240
    blocks = moves[at_the_edge]
    heights = {_longest_equal(block) for block in blocks}
    widths = {_longest_equal(block.transpose(1, 2)) for block in blocks}
    assert {1, 2, 3, 12} <= heights and {1, 2, 3, 8} <= widths
    assert float(blocks.mean().abs()) < 0.05


def _longest_equal(image: Tensor) -> int:
    """How many rows of an image (C, H, W), from the top, are equal to the first."""
    same = (image == image[:, :1]).all(dim=2).all(dim=0)
    return int(same.int().cumprod(0).sum())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projection_leaves_what_is_inside(norm: Norm) -> None:
    images = 0.4 + 0.2 * unit_images(4)
    near = images + 0.01
    torch.testing.assert_close(project(near, images, 0.1, norm), near)


@pytest.mark.parametrize("loss", [cross_entropy_loss, margin_loss])
def test_restarts_never_hurt(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    model, images = curved(), unit_images(64)
    labels = model(images).argmax(1)

    def reached(restarts: int) -> tuple[Tensor, Tensor]:
        attacked = pgd(
            model,
            images,
            labels,
            epsilon=0.06,
            steps=4,
            step_size=0.02,
            loss=loss,
            restarts=restarts,
            generator=torch.Generator().manual_seed(3),
        )
        logits = model(attacked)
        return logits.argmax(1) != labels, loss(logits, labels)

    (fooled_once, loss_once), (fooled, losses) = reached(1), reached(6)
    # The first of the six starts is the single one, so nothing may get lost on the way.
    assert bool((fooled | ~fooled_once).all())
    assert int(fooled.sum()) > int(fooled_once.sum())
    unfooled = ~fooled
    assert bool((losses[unfooled] >= loss_once[unfooled]).all())
    assert bool((losses > loss_once).any())


def test_more_steps_raise_the_loss() -> None:
    model, images = curved(), unit_images(64)
    labels = model(images).argmax(1)

    def mean_loss(steps: int) -> float:
        start = torch.Generator().manual_seed(0)
        found = pgd(
            model, images, labels, epsilon=0.1, steps=steps, step_size=0.02, generator=start
        )
        return float(cross_entropy_loss(model(found), labels).mean())

    assert mean_loss(20) > mean_loss(1) > float(cross_entropy_loss(model(images), labels).mean())


def test_a_seeded_attack_is_repeatable() -> None:
    model, images = curved(), unit_images(8)
    labels = torch.zeros(8, dtype=torch.int64)

    def attacked(seed: int) -> Tensor:
        start = torch.Generator().manual_seed(seed)
        return pgd(model, images, labels, epsilon=0.1, steps=2, step_size=0.02, generator=start)

    assert torch.equal(attacked(1), attacked(1))
    assert not torch.equal(attacked(1), attacked(2))


@pytest.mark.parametrize(
    ("logits", "label", "margin"),
    [([1.0, 3.0, 2.0], 1, -1.0), ([1.0, 3.0, 2.0], 0, 2.0), ([5.0, 5.0, 0.0], 0, 0.0)],
)
def test_the_margin_is_positive_where_misclassified(
    logits: list[float], label: int, margin: float
) -> None:
    assert float(margin_loss(torch.tensor([logits]), torch.tensor([label]))) == margin


def test_an_attack_leaves_the_model_and_its_inputs_as_they_were() -> None:
    model = curved().requires_grad_(True)
    images, labels = unit_images(4), torch.zeros(4, dtype=torch.int64)
    before = images.clone()
    with torch.no_grad():
        found = pgd(model, images, labels, epsilon=0.1, steps=2, step_size=0.05)
    assert torch.equal(images, before) and not images.requires_grad
    assert not found.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_input_gradient_is_that_of_the_loss() -> None:
    images, labels = unit_images(3), torch.ones(3, dtype=torch.int64)
    found = input_gradient(two_classes, images, labels, margin_loss)
    torch.testing.assert_close(found, -WEIGHTS.reshape(1, 1, 4, 4).expand(3, 1, 4, 4))


@pytest.mark.parametrize("wrong", [{"epsilon": -0.1}, {"steps": 0}, {"restarts": 0}])
def test_senseless_settings_are_refused(wrong: dict[str, float]) -> None:
    options = {"epsilon": 0.1, "steps": 1, "step_size": 0.1, **wrong}
    labels = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="need epsilon >= 0"):
        pgd(two_classes, unit_images(2), labels, **options)  # type: ignore[arg-type]
