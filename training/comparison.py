"""Robustness cards side by side, with what may be read out of their differences."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from app.bundle import CARD_FILE, BundleError, read_manifest, read_verified
from training.card import Card, Row


@dataclass(frozen=True)
class Difference:
    """How far a share lies above another one, with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @property
    def beyond_noise(self) -> bool:
        """Whether no difference at all is outside of the interval."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Line:
    """One figure of every card.

    Attributes:
        title: what was measured.
        rows: of each card, None where it has none.
        differences: of each later card to the first one, or why there is none to be told.
    """

    title: str
    rows: tuple[Row | None, ...]
    differences: tuple[Difference | str, ...]


def read_card(path: Path) -> Card:
    """The card of a bundle's folder, or that of a file.

    Raises:
        ValueError: there is none, or it is damaged or of another version of the program.
    """
    if path.is_dir():
        manifest = read_manifest(path)
        if CARD_FILE not in manifest.files:
            raise BundleError(f"{path} has no card; limbeck-train evaluate makes one")
        content = read_verified(path, manifest, CARD_FILE)
    else:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return Card.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "document"
        raise ValueError(
            f"{path}: is no card that this program reads: {where}: {first['msg']}"
        ) from (error)


def difference(first: Row, second: Row) -> Difference:
    """How far the second accuracy lies above the first; the samples count as independent.

    Source:
        Newcombe 1998, Interval estimation for the difference between independent proportions,
        method 10 (from the two Wilson intervals).
    """
    value = second.accuracy - first.accuracy
    below = math.hypot(second.accuracy - second.low, first.high - first.accuracy)
    above = math.hypot(second.high - second.accuracy, first.accuracy - first.low)
    return Difference(value, value - below, value + above)


def lines_of(cards: Sequence[Card]) -> list[Line]:
    """Every figure that any of the cards has, in the order of the first that has it."""
    figures = [dict(_figures(card)) for card in cards]
    keys = dict.fromkeys(key for found in figures for key in found)
    lines = []
    for key in keys:
        rows = tuple(found[key][1] if key in found else None for found in figures)
        title = next(found[key][0] for found in figures if key in found)
        differences = tuple(
            _compared(cards[0], rows[0], card, row)
            for card, row in zip(cards[1:], rows[1:], strict=True)
        )
        lines.append(Line(title, rows, differences))
    return lines


def caveats(names: Sequence[str], cards: Sequence[Card]) -> list[str]:
    """What stands in the way of comparing the cards, the worst first."""
    found = [
        f"{name} {flaw}" for name, card in zip(names, cards, strict=True) for flaw in _flaws(card)
    ]
    told: dict[str, list[str]] = {
        "measured on other test images, so no row can be compared": [
            f"{card.data} {card.data_sha256[:12]}" for card in cards
        ],
        "attacked in other norms": [card.norm for card in cards],
        "attacked with other epsilons": [f"{card.epsilon:.4g}" for card in cards],
        "attacked on other numbers of images": [f"{card.n:,}" for card in cards],
        "attacked on another random choice of images": [f"seed {card.seed}" for card in cards],
        "attacked with other versions of the programs": [
            " ".join(f"{name} {version}" for name, version in sorted(card.versions.items()))
            for card in cards
        ],
        "evaluated with other omissions": [" ".join(card.omitted) or "none" for card in cards],
    }
    for what, values in told.items():
        if len(set(values)) > 1:
            listed = ", ".join(f"{n}: {v}" for n, v in zip(names, values, strict=True))
            found.append(f"{what} ({listed})")
    return found


def same_images(cards: Sequence[Card]) -> bool:
    """Whether all cards attacked the very same images."""
    return len({(card.data_sha256, card.n, card.seed) for card in cards}) == 1


def _flaws(card: Card) -> Iterator[str]:
    """Why a card is no measurement of what it stands for, or a doubtful one."""
    if card.quick:
        yield "is a trial with shortened attacks (--quick): its attacked rows measure nothing"
    if card.headline.sees == "surrogate":
        yield "was attacked with a surrogate's gradients: none of its rows is a white-box attack"
    for check in card.checks:
        if not check.passed:
            yield f"failed a check of its evaluation: {check.finding}"


def _figures(card: Card) -> Iterator[tuple[str, tuple[str, Row]]]:
    """Key, title and row of every figure with an interval."""
    for row in (*card.rows, card.headline, *card.unseen):
        yield row.key, (row.title, row)
    for ablation in card.ablations:
        for kind, row in ablation.kinds.items():
            yield f"{ablation.key} {kind}", (f"Ablation: {ablation.title}, {kind}", row)


def _compared(first: Card, one: Row | None, second: Card, other: Row | None) -> Difference | str:
    """The difference of two rows, or why none can be told."""
    if one is None or other is None:
        return "not in both"
    if first.data_sha256 != second.data_sha256:
        return "other data"
    if one.attack and (first.quick or second.quick):
        return "a trial"
    if (one.norm, one.epsilon) != (other.norm, other.epsilon):
        return "other epsilon or norm"
    if one.attack != other.attack:
        return "another attack"
    if one.sees != other.sees:
        return "another access"
    return difference(one, other)
