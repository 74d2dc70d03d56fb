"""The pieces that a card's page is put together from."""

from collections.abc import Sequence

from training.card import Card, Row

NORMS = {"linf": "L∞", "l2": "L2"}
SEES = {
    "nothing": "-",
    "classifier": "the classifier",
    "everything": "purifier and classifier, with gradients",
    "scores": "the scores only",
    "surrogate": "a surrogate",
}
_CAPTIONS = {
    "examples.png": "Images drawn by the project or CC0 photographs, never images of the data set: "
    "clean, attacked (through the classifier alone, or through purifier and classifier), "
    "purified, and what purification changed (grey is unchanged). Below each image stands the "
    "classifier's answer, orange where it is another than for the clean one.",
    "epsilon.png": "Accuracy over epsilon, each model attacked itself.",
    "detection.png": "Telling attacked from clean images by the shift: how many of each attack's "
    "images are caught at every rate of false alarms.",
    "training.png": "Training of each stage: its loss, and accuracy on validation images: clean, "
    "attacked through the classifier alone (grey-box), or through both (end-to-end).",
}


def section(title: str, *parts: str) -> str:
    """A heading with its parts, those left out that are empty."""
    return "\n\n".join(part for part in (f"## {title}", *parts) if part)


def picture(name: str, pictures: Sequence[str]) -> str:
    """The picture with its caption, if it is there."""
    return f"![{_CAPTIONS[name]}]({name})" if name in pictures else ""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; numbers are set right."""
    numeric = {"n", "AUROC", "epsilon", "severity", "multiply-adds"}
    marks = ["---:" if "%" in title or title in numeric else "---" for title in header]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, marks, *rows))


def accuracy(row: Row) -> str:
    """Accuracy with its interval, in per cent."""
    return f"**{number(row.accuracy)}** ({number(row.low)} to {number(row.high)})"


def accuracy_table(rows: Sequence[Row]) -> str:
    """Rows of the card with what each attack sees."""
    cells = [
        [row.title, SEES[row.sees], row.attack or "-", accuracy(row), str(row.n)] for row in rows
    ]
    return table(["", "the attack sees", "attack", "accuracy, %", "n"], cells)


def access(card: Card) -> str:
    """How the card's attacks by gradients had them."""
    return (
        "with a surrogate's gradients"
        if card.headline.sees == "surrogate"
        else "with full access to it"
    )


def number(share: float) -> str:
    """A share in per cent without the sign."""
    return f"{100 * share:.1f}"


def percent(share: float) -> str:
    """A share in per cent."""
    return f"{100 * share:.1f} %"
