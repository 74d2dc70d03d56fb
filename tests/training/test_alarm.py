import pytest
import torch

from tests.training.linear_trials import linear_trial
from training.adversary import Attacked
from training.alarm import attacked_groups, detection_rows, shifts_by_group
from training.trial import Protocol, Trial
from training.unseen import Unseen
from training.white_box import WhiteBox


def _attacked(trial: Trial, standing: int, shade: float, count: int = 10) -> Attacked:
    """An attack after which so many of the images stand, and that marks those it changed."""
    robust = torch.arange(count) < standing
    images = trial.images[:count].clone()
    images[~robust] = shade
    return Attacked(images, robust)


def _trial() -> Trial:
    trial = linear_trial(Protocol(0.1, unseen_l2=0.5, unseen_n=6), count=10)
    trial.labels[9] = (trial.labels[9] + 1) % 5  # wrong from the start
    return trial


def test_each_attack_shows_what_it_changed_and_no_clean_image() -> None:
    trial = _trial()
    everything = Attacked(torch.full_like(trial.images, 0.5), torch.arange(10) < 8)
    found = WhiteBox(
        gradient=_attacked(trial, 7, 0.1),
        square=_attacked(trial, 8, 0.2),
        pgd={"cross-entropy": everything, "margin": everything},
        transfer=everything,
    )
    none = _attacked(trial, 6, 0.0, count=6)
    unseen = Unseen(bare=none, pipeline=_attacked(trial, 4, 0.4, count=6))
    groups = attacked_groups(trial, _attacked(trial, 0, 0.3), found, unseen)
    # Of ten images one was wrong from the start: no attack counts it.
    assert {group.key: len(group.images) for group in groups} == {
        "grey_box": 9,
        "end_to_end_successes": 2,
        "end_to_end_pgd_cross_entropy": 9,
        "end_to_end": 9,
        "square": 1,
        "transfer": 9,
        "unseen_l2": 2,
    }
    by_key = {group.key: group for group in groups}
    assert (by_key["unseen_l2"].images == 0.4).all()
    assert (by_key["unseen_l2"].norm, by_key["unseen_l2"].epsilon) == ("l2", 0.5)
    assert (by_key["square"].norm, by_key["square"].sees) == ("linf", "scores")
    assert "pyautoattack" in by_key["square"].versions
    assert "training.attacks" in by_key["transfer"].versions


def test_an_attack_that_changed_nothing_is_not_listed() -> None:
    trial = _trial()
    held = _attacked(trial, 10, 0.0)
    found = WhiteBox(held, held, {"cross-entropy": held, "margin": held}, None)
    groups = attacked_groups(trial, held, found, None)
    assert {group.key for group in groups} == {"end_to_end", "end_to_end_pgd_cross_entropy"}


def test_the_rows_count_alarms_over_the_threshold() -> None:
    trial = _trial()
    held = _attacked(trial, 10, 0.0)
    found = WhiteBox(held, held, {"cross-entropy": held, "margin": held}, None)
    groups = attacked_groups(trial, held, found, None)[:1]
    key = groups[0].key
    # The purifier of this trial changes nothing, and so does not move the classifier.
    assert shifts_by_group(trial, groups)[key].abs().max() == 0
    clean, attacked = torch.linspace(0, 0.99, 100), torch.tensor([0.505, 0.905, 0.995, 1.0])
    (row,) = detection_rows(trial, clean, groups, {key: attacked}, 0.95)
    assert row.false_alarms == pytest.approx(0.04) and row.detected == 0.5
    assert (row.n_clean, row.threshold_bits) == (100, 0.95)
    assert row.auroc == pytest.approx((0.51 + 0.91 + 1 + 1) / 4)
