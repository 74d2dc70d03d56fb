from dataclasses import replace

import pytest
import torch

from tests.training.linear_trials import linear_trial
from tests.training.small_networks import Linear
from training.recipe_book import PAPER
from training.trial import Protocol
from training.unseen import attack_unseen, unseen_radius, unseen_rows

PROTOCOL = Protocol(0.02, unseen_l2=0.1, unseen_n=20)


@pytest.mark.parametrize(
    ("setting", "channels", "radius"), [(None, 1, 2.0), (None, 3, 0.5), (1.5, 1, 1.5), (0.0, 3, 0)]
)
def test_the_radius_is_the_recipes_or_that_of_such_images(
    setting: float | None, channels: int, radius: float
) -> None:
    assert unseen_radius(replace(PAPER, unseen_l2=setting), channels) == radius


def test_what_falls_in_l2_is_what_must_fall() -> None:
    trial = linear_trial(PROTOCOL)
    found = attack_unseen(trial)
    assert found is not None
    classifier = trial.networks["classifier"]
    assert isinstance(classifier, Linear)
    expected = classifier.standing(trial.images[:20], trial.labels[:20], 0.1, "l2")
    assert torch.equal(found.bare.robust, expected)
    assert torch.equal(found.pipeline.robust, expected)
    assert 0 < int(expected.sum()) < 20
    bare, pipeline = unseen_rows(trial, found)
    assert pipeline.title.startswith("Unseen threat") and pipeline.sees == "everything"
    assert (bare.defence, pipeline.defence) == ("none", "student")
    for row in (bare, pipeline):
        assert (row.norm, row.epsilon, row.n, row.attack) == ("l2", 0.1, 20, "APGD-CE, APGD-T")


@pytest.mark.parametrize("changes", [{"unseen_l2": 0.0}, {"norm": "l2"}])
def test_nothing_is_unseen_where_l2_is_the_headline_or_switched_off(
    changes: dict[str, object],
) -> None:
    trial = linear_trial(Protocol(**{"epsilon": 0.02, "unseen_l2": 0.3, **changes}))  # type: ignore[arg-type]
    assert attack_unseen(trial) is None
    assert unseen_rows(trial, None) == ()
