"""Detection by shift: how far purification moves the classifier's answer."""

import math

import torch
from torch import Tensor, nn

from training.adversary import logits_of, outputs_of

FALSE_ALARM_RATE = 0.01


def jensen_shannon_bits(before: Tensor, after: Tensor) -> Tensor:
    """Jensen-Shannon divergence of class probabilities, in bits (0 to 1).

    Shape:
        before, after: logits (N, K).
        returns: (N,), float64: the service compares its own float64 with a threshold made of these.
    """
    # Double precision: the divergence of two nearly equal answers is a difference of near-equals.
    p, q = before.double().softmax(1), after.double().softmax(1)
    mixture = (p + q) / 2
    return (_entropy_bits(mixture) - (_entropy_bits(p) + _entropy_bits(q)) / 2).clamp(0, 1)


def _entropy_bits(probabilities: Tensor) -> Tensor:
    """Entropy of each row, (N,)."""
    bits: Tensor = torch.special.entr(probabilities).sum(1) / math.log(2)
    return bits


def shifts(purifier: nn.Module, classifier: nn.Module, images: Tensor) -> Tensor:
    """The shift of each image, in bits (N,)."""
    before = logits_of(classifier, images)
    after = logits_of(classifier, outputs_of(purifier, images))
    return jensen_shannon_bits(before, after)


def shift_threshold(clean_shifts: Tensor, rate: float = FALSE_ALARM_RATE) -> float:
    """The smallest shift that at most the given share of clean images exceeds.

    Raises:
        ValueError: there are no images.
    """
    if len(clean_shifts) == 0:
        raise ValueError("a threshold needs clean validation images")
    ordered = clean_shifts.sort(descending=True).values
    return float(ordered[int(rate * len(ordered))])


def auroc(clean: Tensor, attacked: Tensor) -> float:
    """Chance that an attacked image scores above a clean one; ties count half.

    Raises:
        ValueError: one of the two is empty.
    """
    if len(clean) == 0 or len(attacked) == 0:
        raise ValueError("AUROC needs clean and attacked images")
    ordered = clean.sort().values
    below = torch.searchsorted(ordered, attacked, right=False)
    up_to = torch.searchsorted(ordered, attacked, right=True)
    return float((below + up_to).double().mean() / 2 / len(clean))


def roc_curve(clean: Tensor, attacked: Tensor) -> tuple[list[float], list[float]]:
    """False-alarm and detection rates over all thresholds, both rising from 0 to 1."""
    thresholds = torch.unique(torch.cat([clean, attacked])).flip(0)
    false_alarms = [0.0, *((clean >= t).double().mean().item() for t in thresholds)]
    detections = [0.0, *((attacked >= t).double().mean().item() for t in thresholds)]
    return false_alarms, detections
