from functools import partial

import pytest
import torch

from tests.training.cards import make_card
from tests.training.linear_trials import linear_trial
from training.card import Ablation, Row, accuracy_row
from training.checks import BrokenEvaluation
from training.self_tests import check_teacher, excuse_of, insist, resists_alone
from training.trial import Protocol, Trial


@pytest.fixture
def trial() -> Trial:
    """One with three labels, so that a guess is right on a third."""
    made = linear_trial(Protocol.shortened(0.1))
    made.labels = torch.arange(40) % 3
    return made


def _row(correct: int) -> Row:
    return accuracy_row("key", "Title", torch.arange(100) < correct, defence="none", epsilon=0.1)


def _teacher(clean: int, attacked: int) -> Ablation:
    row = partial(accuracy_row, "key", "Title", defence="normal_teacher")
    rows = {
        "clean": row(torch.arange(100) < clean),
        "end_to_end": row(torch.arange(100) < attacked),
    }
    return make_card().ablations[0].model_copy(update=rows)


def _fails() -> None:
    raise BrokenEvaluation("found")


def test_without_an_excuse_the_evaluation_stops(trial: Trial) -> None:
    assert insist(trial, lambda: None)
    with pytest.raises(BrokenEvaluation, match="found"):
        insist(trial, _fails)
    assert not trial.warnings
    assert not insist(trial, _fails, excuse="with one")
    assert trial.warnings == {"with one: found"}


def test_a_classifier_with_gradients_has_its_training_alone_for_an_excuse(trial: Trial) -> None:
    assert not excuse_of(trial)
    assert "trained against attacks" in excuse_of(trial, may_resist=True)


@pytest.mark.parametrize("may_resist", [False, True])
def test_a_classifier_that_breaks_needs_no_warning(trial: Trial, may_resist: bool) -> None:
    assert not resists_alone(trial, _row(8), may_resist=may_resist)
    assert not trial.warnings


def test_only_a_classifier_that_may_resist_may_withstand(trial: Trial) -> None:
    with pytest.raises(BrokenEvaluation, match=r"keeps 60\.0%"):
        resists_alone(trial, _row(60), may_resist=False)
    assert not trial.warnings
    assert resists_alone(trial, _row(60), may_resist=True)
    told = sorted(trial.warnings)
    assert "60.0% here: these are clean in the grey-box rows" in told[0]
    assert told[1].startswith("unless the classifier was trained against attacks: the undefended")


@pytest.mark.parametrize(("clean", "breaks"), [(90, True), (35, False)])
def test_a_teacher_that_learnt_nothing_says_nothing_about_attacks(
    trial: Trial, clean: int, breaks: bool
) -> None:
    teacher, bare = _teacher(clean, 33), _row(2)
    if breaks:
        with pytest.raises(BrokenEvaluation, match=r"keeps 33\.0%"):
            check_teacher(trial, teacher, bare, may_resist=False)
    else:
        check_teacher(trial, teacher, bare, may_resist=False)
    assert any("learnt too little" in warning for warning in trial.warnings) != breaks


@pytest.mark.parametrize(
    ("attacked", "bare", "warning"),
    [
        (60, 55, None),
        (80, 55, "unless the classifier was trained against attacks: the normal teacher keeps 80"),
        (90, 92, "the classifier alone keeps 92.0% under attack: the normal teacher cannot show"),
    ],
)
def test_a_teacher_before_a_classifier_that_resists(
    trial: Trial, attacked: int, bare: int, warning: str | None
) -> None:
    check_teacher(trial, _teacher(95, attacked), _row(bare), may_resist=True)
    assert len(trial.warnings) == (warning is not None)
    assert all(told.startswith(warning or "") for told in trial.warnings)
