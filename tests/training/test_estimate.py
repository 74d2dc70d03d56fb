from dataclasses import replace

import pytest
import torch

from tests.training.linear_trials import linear_trial
from training.estimate import Work, speeds_of, total_s, work_of
from training.speed import Passes, Speed
from training.trial import Protocol, Trial

# Five classes: the targeted attacks have four targets.
FULL = Protocol(0.3, queries=1000, unseen_l2=2.0, pgd_steps=50, pgd_restarts=2, sweep_n=10)


def _with_surrogate(trial: Trial) -> Trial:
    networks = trial.networks
    more = {
        "surrogate_purifier": networks["student"],
        "surrogate_classifier": networks["classifier"],
        "ablation_none": networks["student"],
    }
    return replace(trial, networks={**networks, **more})


def test_every_attack_is_counted_on_its_model() -> None:
    work = work_of(_with_surrogate(linear_trial(FULL, count=20)), may_resist=False)
    brief = Passes(gradients=101 + 40)
    autoattack = Passes(gradients=101 + 4 * 101 + 4 * 100, forwards=4 * 100 + 1000)
    assert Work("student", 20, autoattack + Passes(gradients=2 * 2 * 50)) in work
    assert Work("ablation_none", 20, brief) in work and Work("student", 20, brief) in work
    # Eleven points of the grid beside the one without an attack, on ten images each.
    assert Work("student", 110, brief) in work
    assert Work("surrogate", 20, Passes(gradients=2 * 50)) in work
    assert Work("student", 20, Passes(gradients=101 + 4 * 101)) in work
    assert Work("classifier", 20, Passes(gradients=1 + 5 + 10 + 20 + 40 + 100)) in work
    assert len(work) == 11


def test_a_classifier_that_may_resist_meets_every_attack() -> None:
    natural = work_of(linear_trial(FULL, count=20), may_resist=False)
    resisting = work_of(linear_trial(FULL, count=20), may_resist=True)
    autoattack = Passes(gradients=101 + 4 * 101 + 4 * 100, forwards=4 * 100 + 1000)
    assert Work("classifier", 20, autoattack) in resisting
    assert Work("classifier", 110, Passes(gradients=101 + 40)) in resisting
    assert Work("classifier", 20, Passes(gradients=101 + 4 * 101)) in resisting
    others = [[item for item in work if item.model == "student"] for work in (natural, resisting)]
    assert others[0] == others[1]


def test_what_is_not_run_costs_nothing() -> None:
    work = work_of(linear_trial(replace(FULL, unseen_l2=0.0), count=20), may_resist=False)
    assert {item.model for item in work} == {"classifier", "student"}
    assert len(work) == 7


def test_the_total_is_images_times_passes_times_speed() -> None:
    work = (Work("student", 10, Passes(2, 3)), Work("classifier", 4, Passes(1, 0)))
    speeds = {"student": Speed(0.1, 1.0), "classifier": Speed(0.1, 0.5)}
    assert total_s(work, speeds) == pytest.approx(10 * 2.3 + 4 * 0.5)


def test_each_model_is_measured() -> None:
    trial = _with_surrogate(linear_trial(FULL, count=20))
    speeds = speeds_of(trial, work_of(trial, may_resist=False))
    assert speeds.keys() == {"classifier", "student", "surrogate", "ablation_none"}
    assert all(speed.gradient_s > 0 and speed.forward_s > 0 for speed in speeds.values())
    assert torch.is_grad_enabled()
