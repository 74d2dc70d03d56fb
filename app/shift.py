"""Probabilities, and how far purification moved them."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
Probabilities = npt.NDArray[np.float64]


def softmax(logits: Array) -> Probabilities:
    """Class probabilities; of logits that are not finite, NaN.

    Shape:
        logits: (..., K).
        returns: as logits, float64, sums to 1 over the last axis.
    """
    with np.errstate(invalid="ignore"):
        raised = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
        probabilities: Probabilities = raised / raised.sum(axis=-1, keepdims=True)
    return probabilities


def shift_bits(before: Array, after: Array) -> float:
    """Jensen-Shannon divergence between two distributions, in bits: 0 (equal) to 1 (disjoint).

    Shape:
        before, after: (K,), probabilities.

    Source:
        Lin 1991, Divergence measures based on the Shannon entropy.
    """
    divergence = (_bits_from_mean(before, after) + _bits_from_mean(after, before)) / 2
    return min(1.0, max(0.0, divergence))  # rounding may leave the range by an ulp


def _bits_from_mean(of: Array, other: Array) -> float:
    """Kullback-Leibler divergence from the mean of both, in bits; terms of probability 0 count 0.

    The mean is not halved: half of the smallest float would be 0, and the divergence infinite.
    """
    support = of > 0
    share = of[support] / (of[support] + other[support])
    return float(np.sum(of[support] * (1 + np.log2(share))))
