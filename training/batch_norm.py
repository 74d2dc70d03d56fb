"""Batch norm over a batch that several processes share, on any device."""

from typing import Any

import torch
from torch import Tensor, nn

from training.processes import Processes


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose statistics, while it trains, are those of all processes' images.

    It has the parameters and buffers of the layer whose place it takes, under the same names.
    PyTorch's own, `SyncBatchNorm`, needs a GPU.

    Args:
        layer: to take the place of.
        processes: that share each batch evenly.

    Shape:
        As `BatchNorm2d`.
    """

    def __init__(self, layer: nn.BatchNorm2d, processes: Processes) -> None:
        super().__init__(layer.num_features, layer.eps, layer.momentum)
        self.weight, self.bias = layer.weight, layer.bias
        self.running_mean, self.running_var = layer.running_mean, layer.running_var
        self.num_batches_tracked = layer.num_batches_tracked
        self.processes = processes
        self.train(layer.training)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise a share of the batch."""
        if not self.training:
            return super().forward(input)
        normalised: Tensor
        normalised, mean, variance = _Normalisation.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, self.eps, self.processes
        )
        self._track(mean, variance, input[:, 0].numel() * self.processes.count)
        return normalised

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics towards those of this batch."""
        assert self.momentum is not None and self.num_batches_tracked is not None
        assert self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / max(1, count - 1)), self.momentum)


class _Normalisation(torch.autograd.Function):
    """Normalised features, and mean and variance (C,) of those of all processes.

    Written out because autograd takes several times as long for it on a CPU.

    Source:
        Ioffe, Szegedy 2015, algorithm 1 and the gradients below it.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, eps: float, processes: Processes
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features (N, C, H, W); in float32 within, for bfloat16 has too few digits."""
        own_mean = features.float().mean(_ALL_BUT_CHANNELS)
        own_variance = (features - _of_channels(own_mean)).square().mean(_ALL_BUT_CHANNELS)
        means, variances = processes.gathered(torch.stack([own_mean, own_variance])).unbind(1)
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        deviation = (variance + eps).sqrt()
        ctx.save_for_backward(features, weight, mean, deviation)
        ctx.processes = processes
        ctx.mark_non_differentiable(mean, variance)
        scale = _of_channels(weight / deviation)
        normalised = torch.addcmul(_of_channels(bias), features - _of_channels(mean), scale)
        return normalised.to(features.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """Gradients of the features in the losses of all processes, of the rest in its own."""
        features, weight, mean, deviation = ctx.saved_tensors
        gradient = gradients[0].float()
        standard = (features - _of_channels(mean)) / _of_channels(deviation)
        of_bias = gradient.sum(_ALL_BUT_CHANNELS)
        of_weight = (gradient * standard).sum(_ALL_BUT_CHANNELS)
        shared = torch.stack([of_bias, of_weight]) / gradient[:, 0].numel()
        ctx.processes.average([shared])
        along = torch.addcmul(_of_channels(shared[0]), standard, _of_channels(shared[1]))
        of_features = (gradient - along) * _of_channels(weight / deviation)
        return of_features.to(features.dtype), of_weight, of_bias, None, None


_ALL_BUT_CHANNELS = (0, 2, 3)


def _of_channels(values: Tensor) -> Tensor:
    """Values (C,) that are spread over features (N, C, H, W)."""
    return values[:, None, None]


def share_batch_norm(network: nn.Module, processes: Processes) -> None:
    """Put `SharedBatchNorm2d` in the place of every batch norm, if there are several processes."""
    if processes.count == 1:
        return
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, SharedBatchNorm2d(child, processes))
