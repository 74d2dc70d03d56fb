"""The ablation on a card's page: each purifier, and each way of teaching over several seeds."""

import math
import statistics
from collections.abc import Sequence
from itertools import groupby

from training.card import Ablation, Card
from training.markdown import accuracy, section, table
from training.stages import kind_of

_BOTH = "ablation_both"


def ablation_section(card: Card) -> str:
    """What each teacher is worth."""
    if not card.ablations:
        return ""
    groups = [list(items) for _, items in groupby(card.ablations, _kind)]
    first, repeated = card.ablations[0], max(map(len, groups))
    intro = (
        f"Each purifier before the same classifier; n = {first.clean.n}. Grey-box: "
        f"{first.grey_box.attack}, then purified. End-to-end: {first.end_to_end.attack}. The "
        "other students were trained with one equal budget, shorter than that of the one served."
    )
    if card.shared_encoder:
        intro += (
            " All students, the one without teachers too, began with one encoder that had learnt "
            "to label attacked images."
        )
    if repeated > 1:
        others = "their other weights" if card.shared_encoder else "their weights"
        intro += (
            f" Of these there are {repeated} each, which differ by the seed of {others} and "
            "batches: mean ± standard deviation over the seeds."
        )
    header = ["purifier", "multiply-adds", *(f"{kind}, %" for kind in first.kinds)]
    return section("Ablation", intro, table(header, list(map(_cells, groups))), *_worth(groups))


def _kind(item: Ablation) -> str:
    """What the repetitions of one student have in common."""
    return kind_of(item.key)


def _cells(group: Sequence[Ablation]) -> list[str]:
    """The line of one purifier, or of those of one kind."""
    first = group[0]
    cost = "-" if first.multiply_adds is None else f"{first.multiply_adds:,}"
    if len(group) == 1:
        return [first.title, cost, *map(accuracy, first.kinds.values())]
    figures = (_percentages(group, kind) for kind in first.kinds)
    spreads = (f"{statistics.mean(f):.1f} ± {statistics.stdev(f):.1f}" for f in figures)
    return [first.title, cost, *spreads]


def _worth(groups: Sequence[Sequence[Ablation]]) -> list[str]:
    """How far students of both teachers are from the others, where several seeds tell."""
    repeated = {group[0].key: group for group in groups if len(group) > 1}
    both = repeated.pop(_BOTH, None)
    if both is None or not repeated:
        return []
    lines = [
        f"- {both[0].title} less {_lowered(group[0].title)}: "
        + ", ".join(f"{kind} {_gap(both, group, kind)}" for kind in both[0].kinds)
        for group in repeated.values()
    ]
    intro = "Differences in points, with their standard errors over the seeds:"
    return [intro, "\n".join(lines)]


def _gap(one: Sequence[Ablation], other: Sequence[Ablation], kind: str) -> str:
    """The difference of two means in points, with its standard error."""
    figures = _percentages(one, kind), _percentages(other, kind)
    error = math.sqrt(sum(statistics.variance(found) / len(found) for found in figures))
    return f"{statistics.mean(figures[0]) - statistics.mean(figures[1]):+.1f} ± {error:.1f}"


def _percentages(group: Sequence[Ablation], kind: str) -> list[float]:
    """The accuracies of one kind."""
    return [100 * item.kinds[kind].accuracy for item in group]


def _lowered(title: str) -> str:
    """A title within a sentence."""
    return title[0].lower() + title[1:]
