from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.training.linear_trials import linear_trial
from tests.training.small_networks import Linear
from training.adversary import Attacked
from training.attempts import (
    NAMES,
    attempt,
    names_of,
    passes,
    require_gradients,
    title_of,
    victim_of,
    worst_of,
)
from training.trial import Protocol

PROTOCOL = Protocol(0.02, pgd_steps=40, pgd_restarts=1, queries=50)


class _NoGradient(nn.Module):
    """Identity that nothing flows back through."""

    def forward(self, images: Tensor) -> Tensor:
        return images.detach().clone()


class _Restored(nn.Module):
    """A purifier that knows what the images were."""

    def __init__(self, clean: Tensor) -> None:
        super().__init__()
        self.clean = clean

    def forward(self, images: Tensor) -> Tensor:
        return self.clean[: len(images)]


@pytest.mark.parametrize("name", NAMES)
def test_no_attack_breaks_what_cannot_be_broken_and_most_find_the_rest(name: str) -> None:
    trial = linear_trial(PROTOCOL, count=24)
    classifier = trial.networks["classifier"]
    assert isinstance(classifier, Linear)
    optimum = classifier.standing(trial.images, trial.labels, 0.02, "linf")
    found = attempt(name, trial)
    assert not (optimum & ~found.robust).any()
    if name in ("apgd-t", "fab-t", "autoattack"):
        assert int((found.robust != optimum).sum()) <= 1
    assert 0 < int(found.robust.sum()) < 24
    counted = trial.pipeline()(found.images).argmax(1) == trial.labels
    assert torch.equal(counted, found.robust)
    taken = passes(name, trial)
    assert taken.gradients > 0 or name == "square"
    assert title_of(name, trial)


def test_a_grey_box_attack_knows_the_classifier_alone() -> None:
    trial = linear_trial(PROTOCOL, count=24, purifier=_NoGradient())
    classifier = trial.networks["classifier"]
    assert isinstance(classifier, Linear)
    assert victim_of(trial, grey_box=True) is classifier
    found = attempt("apgd-ce", trial, grey_box=True)
    # This purifier changes nothing: what breaks the classifier breaks both.
    optimum = classifier.standing(trial.images, trial.labels, 0.02, "linf")
    assert not (optimum & ~found.robust).any() and 0 < int(found.robust.sum()) < 24
    restored = replace(trial, networks={**trial.networks, "student": _Restored(trial.images)})
    assert attempt("apgd-ce", restored, grey_box=True).robust.all()
    assert title_of("fgsm", trial, grey_box=True).endswith("on the classifier alone, then purified")


def test_names_are_read_from_a_list() -> None:
    assert names_of("pgd, square,pgd", 10) == ("pgd", "square")
    with pytest.raises(ValueError, match=r"no attack cw; there are fgsm, pgd, apgd-ce"):
        names_of("pgd,cw", 10)
    with pytest.raises(ValueError, match="no attack ''"):
        names_of("", 10)
    with pytest.raises(ValueError, match="apgd-t needs 4 classes, the bundle has 3"):
        names_of("apgd-ce,apgd-t", 3)


def test_without_gradients_only_score_based_attacks_are_allowed() -> None:
    with_gradients = linear_trial(PROTOCOL, count=4)
    without = linear_trial(PROTOCOL, count=4, purifier=_NoGradient())
    images = with_gradients.images
    assert require_gradients(("pgd", "square"), with_gradients.pipeline(), images, "")
    assert not require_gradients(("square",), without.pipeline(), images, "it has none")
    with pytest.raises(ValueError, match=r"pgd needs gradients, but it has none; .*: square"):
        require_gradients(("square", "pgd"), without.pipeline(), images, "it has none")
    found = attempt("square", replace(without, protocol=replace(PROTOCOL, epsilon=0.3)))
    assert not found.robust.all()


def test_the_worst_of_several_takes_each_images_first_success() -> None:
    shape = 3, 1, 8, 8
    first = Attacked(torch.full(shape, 0.1), torch.tensor([True, False, True]))
    second = Attacked(torch.full(shape, 0.2), torch.tensor([True, False, False]))
    worst = worst_of([first, second])
    assert worst.robust.tolist() == [True, False, False]
    assert worst.images[:, 0, 0, 0].tolist() == pytest.approx([0.2, 0.1, 0.2])
