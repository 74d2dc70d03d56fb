"""Attacks run over many images: in batches, and only on the images that still stand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.attacks import Loss, Norm, fgsm, pgd

Progress = Callable[[str], None]

# Step sizes of the restarts, as shares of epsilon.
STEP_SHARES = (0.25, 0.1, 0.025)


@dataclass(frozen=True)
class Attacked:
    """What an attack did to a set of images.

    Attributes:
        images: (N, C, H, W) in [0, 1]; an image that was wrong from the start is left clean.
        robust: (N,) bool, still classified correctly.
        warnings: what the attack found suspicious about the model.
    """

    images: Tensor
    robust: Tensor
    warnings: tuple[str, ...] = ()


def logits_of(model: nn.Module, images: Tensor, batch_size: int = 500) -> Tensor:
    """Logits of many images, (N, K), without gradients."""
    with torch.no_grad():
        return torch.cat([model(batch) for batch in torch.split(images, batch_size)])


def outputs_of(model: nn.Module, images: Tensor, batch_size: int = 500) -> Tensor:
    """Outputs of many images, such as the purified ones, without gradients."""
    return logits_of(model, images, batch_size)


def is_correct(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Which images the model classifies correctly, (N,) bool."""
    return logits_of(model, images).argmax(1) == labels


def single_step(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    norm: Norm = "linf",
    batch_size: int = 250,
) -> Attacked:
    """FGSM on the images that are right from the start; arguments as of `pgd_cascade`."""
    adversarial = images.clone()
    robust = is_correct(model, images, labels)
    for batch in torch.split(robust.nonzero().flatten(), batch_size):
        adversarial[batch] = fgsm(model, images[batch], labels[batch], epsilon=epsilon, norm=norm)
    return Attacked(adversarial, robust & is_correct(model, adversarial, labels))


def pgd_cascade(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    losses: Sequence[Loss],
    steps: int,
    restarts: int = 1,
    norm: Norm = "linf",
    seed: int = 0,
    batch_size: int = 250,
    judge: nn.Module | None = None,
) -> Attacked:
    """PGD with each loss and restart in turn, on the images that no earlier one has broken.

    The result is the worst case over losses and restarts at a fraction of its cost. Restarts take
    turns with `STEP_SHARES`: on purifiers trained end-to-end, small steps alone leave many times
    as many images standing as large ones.

    Args:
        model: images in [0, 1] to logits, in eval mode.
        images: (N, C, H, W).
        labels: (N,).
        epsilon: radius, in [0, 1] pixel units.
        losses: driven up one after the other.
        steps: of each run.
        restarts: random starts for each loss.
        norm: of the ball.
        seed: of the random starts.
        batch_size: images attacked at once.
        judge: whom the images are to fool, if that is not the model itself.
    """
    generator = torch.Generator().manual_seed(seed)
    judge = judge or model
    adversarial = images.clone()
    robust = is_correct(judge, images, labels)
    for loss in losses:
        for restart in range(restarts):
            standing = robust.nonzero().flatten()
            step_size = STEP_SHARES[restart % len(STEP_SHARES)] * epsilon
            for batch in torch.split(standing, batch_size):
                if len(batch) == 0:
                    continue
                adversarial[batch] = pgd(
                    model,
                    images[batch],
                    labels[batch],
                    epsilon=epsilon,
                    steps=steps,
                    step_size=step_size,
                    norm=norm,
                    loss=loss,
                    generator=generator,
                )
                robust[batch] = is_correct(judge, adversarial[batch], labels[batch])
    return Attacked(adversarial, robust)
