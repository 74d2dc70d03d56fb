from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from tests.training.small_networks import digit_images, small_networks
from training.folding import fold_batch_norm


@pytest.mark.parametrize("index", [0, 1], ids=["purifier", "classifier"])
def test_folding_keeps_the_function_and_the_network(index: int) -> None:
    network = small_networks()[index].train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    folded = fold_batch_norm(network)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert not any(module.training for module in folded.modules())
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    images, _ = digit_images(10)
    torch.testing.assert_close(folded(images), network.eval()(images), atol=1e-5, rtol=1e-4)


class Standardised(nn.Conv2d):
    """A convolution that takes the mean off its weights, as subclasses of users do."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As a convolution."""
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return nn.functional.conv2d(input, weight, self.bias)


class WithActivation(nn.BatchNorm2d):
    """Batch norm and what comes after it in one layer, as published networks have it."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As batch norm."""
        return super().forward(input).relu()


def hooked() -> nn.Conv2d:
    """A convolution whose output a hook changes."""
    layer = nn.Conv2d(3, 2, 1)
    layer.register_forward_hook(lambda module, given, made: 2 * made + 1)
    return layer


LAYERS: dict[str, Callable[[], tuple[nn.Module, nn.Module]]] = {
    "subclass": lambda: (Standardised(3, 2, 1), nn.BatchNorm2d(2)),
    "parametrized": lambda: (weight_norm(nn.Conv2d(3, 2, 1)), nn.BatchNorm2d(2)),
    "hooked": lambda: (hooked(), nn.BatchNorm2d(2)),
    "with activation": lambda: (nn.Conv2d(3, 2, 1), WithActivation(2)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_that_compute_something_else_are_left_alone(kind: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(*LAYERS[kind]())
    network(torch.rand(8, 3, 5, 5))
    images = torch.rand(4, 3, 5, 5)
    folded = fold_batch_norm(network)
    torch.testing.assert_close(folded(images), network.eval()(images))


def test_batch_norm_without_a_convolution_is_left_alone() -> None:
    network = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1))
    network(torch.rand(8, 3, 5, 5))
    folded = fold_batch_norm(network)
    images = torch.rand(4, 3, 5, 5)
    torch.testing.assert_close(folded(images), network.eval()(images))
