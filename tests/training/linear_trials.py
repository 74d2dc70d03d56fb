"""Trials of a linear classifier, behind a purifier that changes nothing unless another is given."""

import torch
from torch import nn

from tests.training.small_networks import Linear
from tests.training.tiny_runs import quiet
from training.state import State
from training.trial import Protocol, Trial


def linear_trial(protocol: Protocol, count: int = 40, purifier: nn.Module | None = None) -> Trial:
    """Images (N, 1, 8, 8) that lie away from the borders of [0, 1], labelled by the classifier."""
    torch.manual_seed(0)
    classifier = Linear()
    images = 0.3 + 0.4 * torch.rand(count, 1, 8, 8)
    networks = {"classifier": classifier, "student": (purifier or nn.Identity()).eval()}
    labels = classifier(images).argmax(1)
    return Trial(networks, images, labels, protocol, State(None), quiet)
