import pytest
import torch

from training.detection import auroc, jensen_shannon_bits, roc_curve, shift_threshold


def test_the_shift_is_zero_for_the_same_answer_and_one_bit_for_opposite_ones() -> None:
    logits = torch.tensor([[100.0, 0.0], [0.0, 100.0], [1.0, 2.0]])
    assert jensen_shannon_bits(logits, logits).tolist() == [0, 0, 0]
    opposite = jensen_shannon_bits(logits[:1], logits[1:2])
    assert opposite.tolist() == pytest.approx([1.0])


def test_the_shift_of_a_known_pair() -> None:
    before = torch.tensor([[0.5, 0.5]]).log()
    after = torch.tensor([[1.0, 1e-30]]).log()
    # H(3/4, 1/4) - (1 + 0) / 2
    assert jensen_shannon_bits(before, after).item() == pytest.approx(0.311278, abs=1e-5)
    assert torch.equal(jensen_shannon_bits(before, after), jensen_shannon_bits(after, before))


def test_auroc_counts_pairs_and_halves_ties() -> None:
    assert auroc(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0])) == 1
    assert auroc(torch.tensor([2.0, 3.0]), torch.tensor([0.0])) == 0
    assert auroc(torch.tensor([1.0, 2.0]), torch.tensor([2.0])) == pytest.approx(0.75)


def test_the_curve_rises_from_none_to_all_and_has_the_area_of_auroc() -> None:
    torch.manual_seed(0)
    clean, attacked = torch.rand(50), torch.rand(60) + 0.3
    false_alarms, detections = (torch.tensor(values) for values in roc_curve(clean, attacked))
    assert false_alarms[0] == detections[0] == 0 and false_alarms[-1] == detections[-1] == 1
    area = float(torch.trapezoid(detections, false_alarms))
    assert area == pytest.approx(auroc(clean, attacked), abs=1e-4)


@pytest.mark.parametrize("count", [10, 100, 1000])
def test_the_threshold_keeps_false_alarms_at_most_at_one_per_cent(count: int) -> None:
    torch.manual_seed(0)
    clean = torch.rand(count)
    threshold = shift_threshold(clean)
    assert float((clean > threshold).float().mean()) <= 0.01
    assert float((clean >= threshold).float().mean()) >= 0.01


def test_nothing_to_measure_is_an_error() -> None:
    with pytest.raises(ValueError, match="clean"):
        shift_threshold(torch.empty(0))
    with pytest.raises(ValueError, match="attacked"):
        auroc(torch.rand(2), torch.empty(0))
