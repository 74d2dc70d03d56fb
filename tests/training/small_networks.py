"""Small networks with batch norm that has seen data, and images for them."""

import torch
from torch import Tensor, nn

from app.bundle import InputSpec
from training.digits import draw_digits
from training.networks import Classifier, ConvAutoencoder

SPEC = InputSpec(channels=1, height=28, width=28)


def digit_images(count: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Drawn digits (N, 1, 28, 28) in [0, 1] with their labels."""
    rounds = -(-count // 10)
    drawn = [torch.from_numpy(draw_digits(range(10), seed=seed + r)) for r in range(rounds)]
    labels = torch.arange(10).repeat(rounds)
    return torch.cat(drawn)[:count].float() / 255, labels[:count]


def small_networks(
    spec: InputSpec = SPEC, seed: int = 0, stem: int = 0, skips: bool = True, pooled_maps: int = 0
) -> tuple[ConvAutoencoder, Classifier]:
    """A purifier and a classifier with ten classes, in eval mode."""
    torch.manual_seed(seed)
    size = (spec.height, spec.width)
    purifier = ConvAutoencoder(
        spec.channels, (4, 8), (0, 1), stem=stem, skips=skips, pooled_maps=pooled_maps, size=size
    )
    classifier = Classifier(spec.channels, (4, 8), (0, 1), 10, stem=2, residual=True)
    for network in (purifier, classifier):
        for _ in range(3):
            network(torch.rand(8, *spec.shape))
        network.eval()
    return purifier, classifier


class Linear(nn.Module):
    """A linear classifier, for which the best attack is known."""

    def __init__(self, features: int = 64, classes: int = 5) -> None:
        super().__init__()
        self.head = nn.Linear(features, classes)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images (N, 1, 8, 8)."""
        logits: Tensor = self.head(images.flatten(1))
        return logits

    def standing(self, images: Tensor, labels: Tensor, epsilon: float, norm: str) -> Tensor:
        """Whether no attack in the ball can succeed, away from the borders of [0, 1]; (N,) bool."""
        differences = self.head.weight[None] - self.head.weight[labels][:, None]  # (N, K, D)
        order = 1.0 if norm == "linf" else 2.0
        reach = epsilon * torch.linalg.vector_norm(differences, order, dim=2)
        logits = self(images)
        margins = logits - logits.gather(1, labels[:, None]) + reach
        margins.scatter_(1, labels[:, None], float("-inf"))
        standing: Tensor = margins.amax(1) < 0
        return standing
