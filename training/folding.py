"""Networks made quick, the same function: batch norm folded into convolutions, channels last."""

from copy import deepcopy
from typing import TypeGuard, TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from training.batch_norm import SharedBatchNorm2d

Network = TypeVar("Network", bound=nn.Module)


def channels_last(network: Network, device: torch.device) -> Network:
    """The network itself, on the device, what has four axes in it laid channels last.

    `nn.Module.to` fails at the five axes that a window's mask may have.
    """
    network.to(device)
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return network


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """A frozen copy of the network in eval mode, without batch norm where it follows a convolution.

    Used for export and for attacks. The network itself is left as it was.
    """
    folded = deepcopy(network).eval().requires_grad_(False)
    for module in list(folded.modules()):
        if isinstance(module, nn.Sequential):
            _fold_pairs(module)
    return folded


def _fold_pairs(layers: nn.Sequential) -> None:
    """Fold each convolution of the sequence with the batch norm right behind it.

    Subclasses, parametrized ones among them, and layers with hooks may compute something else, and
    are left.
    """
    for index in range(len(layers) - 1):
        convolution, norm = layers[index], layers[index + 1]
        if not _is_plain(norm, nn.BatchNorm2d, SharedBatchNorm2d):
            continue
        if _is_plain(convolution, nn.ConvTranspose2d):
            layers[index] = fuse_conv_bn_eval(convolution, norm, transpose=True)
        elif _is_plain(convolution, nn.Conv2d):
            layers[index] = fuse_conv_bn_eval(convolution, norm)
        else:
            continue
        layers[index].requires_grad_(False)
        layers[index + 1] = nn.Identity().eval()


def _is_plain(layer: nn.Module, *kinds: type[Network]) -> TypeGuard[Network]:
    """Whether it is one of the kinds itself, and nothing is hooked onto it."""
    return type(layer) in kinds and not layer._forward_hooks and not layer._forward_pre_hooks
