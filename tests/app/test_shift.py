import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.shift import shift_bits, softmax

LOGITS = st.lists(st.floats(-50, 50, width=32), min_size=3, max_size=3)


def test_probabilities_of_known_logits() -> None:
    assert softmax(np.log(np.array([1.0, 2.0, 5.0]))) == pytest.approx([0.125, 0.25, 0.625])


def test_large_logits_do_not_overflow() -> None:
    assert softmax(np.array([1e4, 0.0], np.float32)).tolist() == [1.0, 0.0]


def test_disjoint_distributions_are_one_bit_apart() -> None:
    assert shift_bits(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(1)


def test_a_known_divergence() -> None:
    # H(3/4, 1/4) - (H(1/2, 1/2) + H(1, 0)) / 2
    expected = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25)) - 0.5
    assert shift_bits(np.array([0.5, 0.5]), np.array([1.0, 0.0])) == pytest.approx(expected)


def test_the_smallest_probability_there_is_moves_nothing() -> None:
    certain = np.array([1.0, 0.0])
    assert shift_bits(np.array([1.0, 5e-324]), certain) == pytest.approx(0)


@given(LOGITS, LOGITS)
def test_the_shift_is_symmetric_and_between_0_and_1(
    first: list[float], second: list[float]
) -> None:
    before, after = softmax(np.array(first)), softmax(np.array(second))
    assert before.sum() == pytest.approx(1)
    assert 0 <= shift_bits(before, after) <= 1
    assert shift_bits(before, after) == pytest.approx(shift_bits(after, before))
    assert shift_bits(before, before) == pytest.approx(0)
