"""A comparison of robustness cards as text for a terminal or as Markdown."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from training.card import Card, Row
from training.comparison import Difference, Line, caveats, lines_of, read_card, same_images

# Terminals and Markdown alike: a table's cells by row, the first row its head.
Table = list[list[str]]


def compare(arguments: Namespace) -> None:
    """Print the cards of two or more bundles side by side."""
    paths: list[Path] = [arguments.first, *arguments.others]
    cards = [read_card(path) for path in paths]
    print(comparison_text(names_of(paths, cards), cards, markdown=arguments.markdown))


def names_of(paths: Sequence[Path], cards: Sequence[Card]) -> list[str]:
    """Bundle and version of each card; where two would be called alike, their paths."""
    names = [f"{card.bundle}@{card.version}" for card in cards]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def comparison_text(names: Sequence[str], cards: Sequence[Card], *, markdown: bool = False) -> str:
    """Caveats, the table, and how it is to be read."""
    found = caveats(names, cards)
    lines = lines_of(cards)
    parts = []
    if found:
        parts.append("Not comparable in all respects:\n" + "\n".join(f"- {item}" for item in found))
    table = _cells(names, lines)
    parts.append(_markdown(table) if markdown else _aligned(table))
    parts.append(_legend(names, cards, lines))
    return "\n\n".join(parts)


def _cells(names: Sequence[str], lines: Sequence[Line]) -> Table:
    """Head and one row a figure: each card's accuracy, each later one's difference to the first."""
    head = ["accuracy, %", names[0]]
    for name in names[1:]:
        head += [name, f"difference to {names[0]}", ""]
    table = [head]
    for line in lines:
        cells = [line.title, _accuracy(line.rows[0])]
        for row, difference in zip(line.rows[1:], line.differences, strict=True):
            cells += [_accuracy(row), *_judged(difference)]
        table.append(cells)
    return table


def _accuracy(row: Row | None) -> str:
    """Accuracy with interval and n."""
    if row is None:
        return "-"
    return f"{100 * row.accuracy:.1f} ({100 * row.low:.1f} to {100 * row.high:.1f}) n={row.n}"


def _judged(difference: Difference | str) -> tuple[str, str]:
    """The difference with its interval, and the verdict."""
    if isinstance(difference, str):
        return "-", difference
    low, high = 100 * difference.low, 100 * difference.high
    verdict = "within noise"
    if difference.beyond_noise:
        verdict = "HIGHER" if difference.value > 0 else "LOWER"
    return f"{100 * difference.value:+.1f} ({low:+.1f} to {high:+.1f})", verdict


def _legend(names: Sequence[str], cards: Sequence[Card], lines: Sequence[Line]) -> str:
    """What the intervals and verdicts mean."""
    judged = sum(isinstance(d, Difference) for line in lines for d in line.differences)
    test = (
        "Intervals are of 95 %: Wilson's for an accuracy, Newcombe's hybrid of two of them for a "
        f"difference, in points. HIGHER and LOWER: than {names[0]}, beyond noise, as the interval "
        "leaves out 0."
    )
    if same_images(cards):
        pairs = (
            "The same images were attacked in all cards, but cards keep counts and not which image "
            "fell, so the test takes them for independent samples. That is cautious where the same "
            "images are hard for all: a small difference may be real and yet within noise."
        )
    else:
        pairs = "The cards attacked different images: the test takes them for independent samples."
    chance = (
        f"Of {judged} comparisons about one in twenty would be beyond noise by chance alone. "
        "Sweeps over epsilon and steps, corruptions and detection are in the cards."
    )
    return "\n".join([test, pairs, chance])


def _aligned(table: Table) -> str:
    """Columns filled up with blanks."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )


def _markdown(table: Table) -> str:
    """A Markdown table."""
    rows = [table[0], ["---"] * len(table[0]), *table[1:]]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
