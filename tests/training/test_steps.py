import pytest
import torch

from tests.training.cards import make_card
from tests.training.linear_trials import linear_trial
from training.card import Steps, StepsPoint
from training.steps import steps_checks, steps_of
from training.trial import Protocol


def test_each_attack_is_run_on_both_models_over_the_first_images() -> None:
    trial = linear_trial(Protocol(0.02, step_counts=(5, 20), steps_n=30))
    stands = torch.arange(40) < 15
    found = steps_of(trial, torch.zeros(40, dtype=torch.bool), stands)
    assert [point.attack for point in found.points] == ["FGSM", "PGD-5", "PGD-20"]
    assert (found.n, found.autoattack_bare, found.autoattack_purified) == (30, 0.0, 0.5)
    # The purifier changes nothing, so that both are attacked alike; on a linear model, whose best
    # attack is known, steps add to the single one only what other classes are nearer.
    classifier = trial.networks["classifier"]
    logits = classifier(trial.images[:30])
    assert torch.equal(logits.argmax(1), trial.labels[:30])
    assert all(point.bare == point.purified for point in found.points)
    assert 0 < found.points[-1].purified < 1
    assert found.points[-1].purified <= found.points[0].purified


@pytest.mark.parametrize(
    ("accuracies", "passed"),
    [((0.9, 0.8, 0.8), True), ((0.79, 0.8, 0.8), True), ((0.5, 0.8, 0.8), False)],
)
def test_a_shorter_attack_that_breaks_more_fails_the_check(
    accuracies: tuple[float, ...], passed: bool
) -> None:
    steps = make_card().steps
    assert steps is not None
    points = tuple(
        StepsPoint(attack=f"PGD-{count}", steps=count, bare=accuracy / 2, purified=accuracy)
        for count, accuracy in zip((1, 10, 100), accuracies, strict=True)
    )
    found = Steps(**{**steps.model_dump(), "points": points})
    (check,) = steps_checks(found, resists=False)
    assert check.passed is passed
    assert "PGD-100 leaves 80.0% of" in check.finding
    same, alone = steps_checks(found, resists=True)
    assert same == check and alone.passed is passed
    assert f"PGD-100 on the classifier alone leaves 40.0% of {found.n}," in alone.finding
