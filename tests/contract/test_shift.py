"""Training sets the threshold by the very shift that the service compares with it."""

import numpy as np
import pytest
import torch

from app.shift import shift_bits, softmax
from training.detection import jensen_shannon_bits


@pytest.mark.parametrize("scale", [0.01, 1, 10, 100, 1000])
@pytest.mark.parametrize("nearness", [0, 1e-3, 1])
def test_the_shift_of_training_is_the_shift_of_the_service(scale: float, nearness: float) -> None:
    generator = np.random.default_rng(0)
    before = (scale * generator.standard_normal((500, 10))).astype(np.float32)
    noise = (scale * generator.standard_normal((500, 10))).astype(np.float32)
    after = (before + np.float32(nearness) * noise).astype(np.float32)
    served = [shift_bits(softmax(b), softmax(a)) for b, a in zip(before, after, strict=True)]
    trained = jensen_shannon_bits(torch.from_numpy(before), torch.from_numpy(after))
    assert trained.dtype == torch.float64
    assert trained.tolist() == pytest.approx(served, rel=0, abs=1e-12)
    if nearness == 1 and scale >= 1:
        assert max(served) > 0.1  # so that the comparison was about something
