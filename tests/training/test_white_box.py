from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.linear_trials import linear_trial
from tests.training.small_networks import Linear
from training import white_box
from training.adversary import Attacked, is_correct, pgd_cascade
from training.attacks import margin_loss
from training.autoattack import autoattack
from training.trial import Protocol
from training.white_box import brief_attack, transfer_attack


def test_the_brief_attack_is_the_worst_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = linear_trial(Protocol.shortened(epsilon=0.02, n=40))
    model, protocol = trial.networks["classifier"], trial.protocol
    shown: list[int] = []

    def counted(attacked: nn.Module, images: Tensor, *rest: Any, **more: Any) -> Attacked:
        shown.append(len(images))
        return autoattack(attacked, images, *rest, **more)

    monkeypatch.setattr(white_box, "autoattack", counted)
    found = brief_attack(trial, "brief", model, trial.images, trial.labels, 0.02)
    alone: Attacked = pgd_cascade(
        model,
        trial.images,
        trial.labels,
        epsilon=0.02,
        losses=(margin_loss,),
        steps=protocol.brief_steps,
        seed=protocol.seed,
        batch_size=protocol.batch_size,
    )
    assert 0 < int(alone.robust.sum()) < len(trial.images)
    assert shown == [int(alone.robust.sum())]  # only what PGD left
    assert not (found.robust & ~alone.robust).any()
    assert torch.equal(is_correct(model, found.images, trial.labels), found.robust)
    assert float((found.images - trial.images).abs().max()) <= 0.02 + 1e-6


def test_the_transfer_attacks_what_its_surrogate_never_knew() -> None:
    trial = linear_trial(Protocol.shortened(epsilon=0.05, n=40))
    surrogate = Linear()  # the classifier with its labels mixed up
    for name, values in trial.networks["classifier"].state_dict().items():
        surrogate.state_dict()[name].copy_(values.roll(1, 0))
    both = {"surrogate_classifier": surrogate, "surrogate_purifier": nn.Identity()}
    trial = replace(trial, networks={**trial.networks, **both})
    assert not is_correct(surrogate, trial.images, trial.labels).any()
    found = transfer_attack(trial)
    assert found is not None
    moved = (found.images - trial.images).abs().flatten(1).amax(1)
    assert bool((moved > 0.9 * 0.05).all())


def test_where_nothing_stands_nothing_more_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = linear_trial(Protocol.shortened(epsilon=1.0, n=40))
    monkeypatch.setattr(white_box, "autoattack", None)
    model = trial.networks["classifier"]
    found = brief_attack(trial, "brief", model, trial.images, trial.labels, 1.0)
    assert not found.robust.any()
