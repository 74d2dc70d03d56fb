"""How long the whole evaluation takes at most, before it starts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

from torch import nn

from training.ablation import purifiers
from training.autoattack import Settings, passes_of
from training.speed import Passes, Speed, measured
from training.sweep import grid_of
from training.trial import Trial
from training.unseen import unseen_settings
from training.white_box import LOSSES, autoattack_settings

CLASSIFIER = "classifier"
SURROGATE = "surrogate"


@dataclass(frozen=True)
class Work:
    """One attack: `images` of them, each with so many passes through a model.

    `model` is `classifier`, `surrogate`, or the purifier before the classifier.
    """

    model: str
    images: int
    passes: Passes


def work_of(trial: Trial, *, may_resist: bool) -> tuple[Work, ...]:
    """Every attack of the evaluation, should the pipelines withstand all of them.

    A naturally trained classifier falls to the first of several attacks, or the evaluation stops;
    one that may resist meets them all.
    """
    protocol, n = trial.protocol, len(trial.images)
    settings, grid = autoattack_settings(trial), grid_of(trial)[1:]
    autoattack = _parts(settings, trial.classes)
    first = _parts(settings, trial.classes, settings.attacks[:1])
    brief = first + Passes(gradients=protocol.brief_steps)
    pgd = Passes(gradients=len(LOSSES) * protocol.pgd_restarts * protocol.pgd_steps)
    steps = Passes(gradients=1 + sum(protocol.step_counts))
    work = [
        Work(CLASSIFIER, n, autoattack if may_resist else first),
        *(Work(name, min(n, protocol.ablation_n), brief) for name in purifiers(trial.networks)),
        Work(CLASSIFIER, len(grid) * min(n, protocol.sweep_n), brief if may_resist else first),
        Work("student", len(grid) * min(n, protocol.sweep_n), brief),
        Work("student", n, autoattack + pgd),
        Work(CLASSIFIER, min(n, protocol.steps_n), steps),
        Work("student", min(n, protocol.steps_n), steps),
    ]
    if {"surrogate_purifier", "surrogate_classifier"} <= trial.networks.keys():
        passes = Passes(gradients=len(LOSSES) * protocol.pgd_steps)
        work.append(Work(SURROGATE, n, passes))
    unseen = unseen_settings(trial)
    if unseen is not None:
        count = min(n, protocol.unseen_n)
        in_l2 = _parts(unseen, trial.classes)
        first_in_l2 = _parts(unseen, trial.classes, unseen.attacks[:1])
        work.append(Work(CLASSIFIER, count, in_l2 if may_resist else first_in_l2))
        work.append(Work("student", count, in_l2))
    return tuple(work)


def speeds_of(trial: Trial, work: Iterable[Work]) -> dict[str, Speed]:
    """The measured speed of each model that the work is on."""
    images, labels = trial.first(trial.protocol.batch_size)
    names = {item.model for item in work}
    return {name: measured(_model(trial, name), images, labels) for name in sorted(names)}


def total_s(work: Iterable[Work], speeds: Mapping[str, Speed]) -> float:
    """Seconds for all of it."""
    return sum(item.images * speeds[item.model].seconds(item.passes) for item in work)


def _parts(settings: Settings, classes: int, attacks: tuple[str, ...] | None = None) -> Passes:
    """AutoAttack's parts, all of the settings' if none are named."""
    names = settings.attacks if attacks is None else attacks
    return reduce(add, (passes_of(name, settings.queries, classes) for name in names))


def _model(trial: Trial, name: str) -> nn.Module:
    """The model that a piece of work is on."""
    if name == CLASSIFIER:
        return trial.networks[CLASSIFIER]
    if name == SURROGATE:
        return trial.pipeline("surrogate_purifier", "surrogate_classifier")
    return trial.pipeline(name)
