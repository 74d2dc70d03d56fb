"""When the evaluation's tests of itself stop it, and when the card only warns."""

from collections.abc import Callable

from training.card import Ablation, Row
from training.checks import (
    BAD_PURIFIER_ABOVE_BARE,
    BrokenEvaluation,
    chance_of,
    check_bad_purifier,
    check_undefended,
)
from training.surrogate_card import has_stand_in
from training.trial import Trial


def excuse_of(trial: Trial, *, may_resist: bool = False) -> str:
    """Why a failed test of the evaluation is only a warning; empty: it stops the evaluation.

    Args:
        trial: what is attacked.
        may_resist: whether it would be an excuse that the classifier resists by its own training.
    """
    if has_stand_in(trial.networks):
        return "with the surrogate's gradients"
    return "unless the classifier was trained against attacks" if may_resist else ""


def insist(trial: Trial, check: Callable[..., None], *findings: object, excuse: str = "") -> bool:
    """Whether the check passes; without an excuse the evaluation stops if it does not.

    Args:
        trial: takes the warning where there is an excuse.
        check: raises if it fails.
        findings: that it takes.
        excuse: what begins the warning.

    Raises:
        BrokenEvaluation: it fails, and nothing excuses it.
    """
    try:
        check(*findings)
    except BrokenEvaluation as error:
        if not excuse:
            raise
        trial.warnings.add(f"{excuse}: {error}")
        return False
    return True


def resists_alone(trial: Trial, bare: Row, *, may_resist: bool) -> bool:
    """Whether the classifier keeps much under AutoAttack by itself; if so, there are warnings.

    Raises:
        BrokenEvaluation: it does, and nothing excuses it.
    """
    excuse = excuse_of(trial, may_resist=may_resist)
    breaks = insist(trial, check_undefended, bare, excuse=excuse)
    if not breaks:
        trial.warnings.add(
            f"AutoAttack leaves images alone that it cannot break, {bare.accuracy:.1%} here: these "
            "are clean in the grey-box rows"
        )
    return not breaks


def check_teacher(trial: Trial, teacher: Ablation, bare: Row, *, may_resist: bool) -> None:
    """Raise unless attacks break the normal teacher; warn if that is excused, or it cannot tell.

    Args:
        trial: takes the warning then.
        teacher: attacked alone, and clean.
        bare: the classifier alone, attacked.
        may_resist: whether that may be for its own training.

    Raises:
        BrokenEvaluation: the teacher withstands them, and nothing excuses it.
    """
    if teacher.clean.low <= chance_of(trial.labels):
        trial.warnings.add(
            f"through the normal teacher {teacher.clean.accuracy:.1%} of the clean images are "
            "right, hardly more than by chance: it learnt too little to show whether attacks reach "
            "through it"
        )
    elif bare.accuracy + BAD_PURIFIER_ABOVE_BARE >= 1:
        trial.warnings.add(
            f"the classifier alone keeps {bare.accuracy:.1%} under attack: the normal teacher "
            "cannot show whether attacks reach through a purifier"
        )
    else:
        excuse = excuse_of(trial, may_resist=may_resist)
        insist(trial, check_bad_purifier, teacher.end_to_end, bare, excuse=excuse)
