"""CARD.md: the card as a page for people."""

from collections.abc import Mapping, Sequence

from training.card import Card, Row

_SEES = {
    "nothing": "-",
    "classifier": "the classifier",
    "everything": "purifier and classifier, with gradients",
    "scores": "the scores only",
    "surrogate": "a surrogate",
}
_NORMS = {"linf": "L∞", "l2": "L2"}
_CAPTIONS = {
    "examples.png": "Images drawn by the project or CC0 photographs, never images of the data set: "
    "clean, attacked (through the classifier alone, or through purifier and classifier), "
    "purified, and what purification changed (grey is unchanged).",
    "epsilon.png": "Accuracy over epsilon, each model attacked with full access to it.",
    "detection.png": "Telling attacked from clean images by the shift.",
    "training.png": "Training of each stage.",
}


def report(card: Card, pictures: Sequence[str]) -> str:
    """The page.

    Args:
        card: what was measured.
        pictures: the names of the plots that lie beside the page.
    """
    parts = [
        _opening(card),
        _accuracies(card),
        _picture("examples.png", pictures),
        _sweep(card, pictures),
        _ablations(card),
        _detection(card, pictures),
        _checks(card),
        _limits(card),
        _picture("training.png", pictures),
        _again(card),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _opening(card: Card) -> str:
    """Title and the one sentence that matters."""
    headline, clean = card.headline, card.row("purified_clean")
    lines = [f"# Robustness card: {card.bundle}, version {card.version}"]
    if card.quick:
        lines.append(
            "> **A trial run with shortened attacks.** These figures show that the evaluation "
            "works, not how robust the purifier is."
        )
    if headline.sees == "surrogate":
        lines.append(
            "> **No attack here is a white-box attack.** The classifier has no gradients; those of "
            "a surrogate were used. All attacked figures are transfer from a surrogate: an "
            "attack made for this classifier may leave far less."
        )
    lines.append(
        f"**{_percent(headline.accuracy)} ({_percent(headline.low)} to {_percent(headline.high)}) "
        f"of the images are still classified correctly when an attacker who knows purifier and "
        f"classifier may change every pixel by {_NORMS[card.norm]} {card.epsilon:.4g}**, "
        f"the worst case over all attacks below, image by image; "
        f"{_percent(clean.accuracy)} when nobody attacks."
    )
    if card.norm == "l2":
        lines[-1] = lines[-1].replace("change every pixel by", "change the image by")
    return "\n\n".join(lines)


def _accuracies(card: Card) -> str:
    """The main table."""
    rows = [
        [row.title, _SEES[row.sees], row.attack or "-", _accuracy(row), str(row.n)]
        for row in card.rows
    ]
    intro = (
        "Accuracies with 95 % confidence intervals (Wilson). Epsilon is in pixel units of [0, 1]; "
        f"attacked rows: {_NORMS[card.norm]} {card.epsilon:.4g}, seed {card.seed}."
    )
    header = ["", "the attack sees", "attack", "accuracy, %", "n"]
    return f"## Accuracy\n\n{intro}\n\n{_table(header, rows)}"


def _sweep(card: Card, pictures: Sequence[str]) -> str:
    """Accuracy over epsilon."""
    rows = [
        [f"{point.epsilon:.4g}", _number(point.bare), _number(point.purified)]
        for point in card.sweep.points
    ]
    intro = f"{card.sweep.attack}; n = {card.sweep.n}. Where any image is allowed it must reach 0."
    table = _table(["epsilon", "classifier alone, %", "purified, %"], rows)
    parts = ["## Over epsilon", intro, _picture("epsilon.png", pictures), table]
    return "\n\n".join(part for part in parts if part)


def _ablations(card: Card) -> str:
    """What each teacher is worth."""
    if not card.ablations:
        return ""
    rows = [
        [item.title, _accuracy(item.clean), _accuracy(item.grey_box), _accuracy(item.end_to_end)]
        for item in card.ablations
    ]
    first = card.ablations[0]
    intro = (
        f"Each purifier before the same classifier; n = {first.clean.n}. Grey-box: "
        f"{first.grey_box.attack}, then purified. End-to-end: {first.end_to_end.attack}. The "
        "students here were trained with one equal budget, shorter than the shipped student's."
    )
    table = _table(["purifier", "clean, %", "grey-box, %", "end-to-end, %"], rows)
    return f"## Ablation\n\n{intro}\n\n{table}"


def _detection(card: Card, pictures: Sequence[str]) -> str:
    """Detection by shift."""
    if not card.detection:
        return ""
    rows = [
        [
            item.title,
            f"{item.auroc:.3f}",
            _number(item.detected),
            _number(item.false_alarms),
            f"{item.n_attacked} / {item.n_clean}",
        ]
        for item in card.detection
    ]
    intro = (
        "The shift is the Jensen-Shannon divergence, in bits, between the class probabilities "
        f"before and after purification. The threshold of {card.detection[0].threshold_bits:.4g} "
        "bits was set to 1 % false alarms on clean validation images. The attacks did not know of "
        "the detector; one that does can avoid it."
    )
    header = ["attacked images", "AUROC", "detected, %", "false alarms, %", "attacked / clean"]
    parts = ["## Detection", intro, _table(header, rows), _picture("detection.png", pictures)]
    return "\n\n".join(part for part in parts if part)


def _checks(card: Card) -> str:
    """The evaluation's tests of itself."""
    rows = [["passed" if check.passed else "**failed**", check.finding] for check in card.checks]
    text = (
        "The evaluation stops with an error if the undefended classifier or the normal teacher "
        "survives, or if accuracy does not fall to chance at the largest epsilon. The checks below "
        "look for masked gradients: attacks that see less must not succeed more."
    )
    if not all(check.passed for check in card.checks):
        text += (
            "\n\n**A check failed: the defence may mask gradients, and stronger attacks may "
            "exist. Trust the worst case over all attacks, and trust it less.**"
        )
    parts = ["## Checks of the evaluation", text, _table(["", "finding"], rows)]
    if card.attack_warnings:
        parts.append(
            "Warnings by the attacks:\n\n" + "\n".join(f"- {w}" for w in card.attack_warnings)
        )
    return "\n\n".join(parts)


def _limits(card: Card) -> str:
    """What the card does not show."""
    points = [
        f"Only {_NORMS[card.norm]} perturbations were tried: nothing here speaks of other norms, "
        "patches, rotations, blur or other images than those of the test set.",
        "Attacked images were float32 as the attack made them, not rounded to 8 bits, which "
        "favours the attacker slightly.",
        "An attack that fails proves nothing. The figures are upper bounds on robustness, "
        f"measured on {card.n} random test images.",
        "Grey-box figures hold only while nobody who attacks knows of the purifier.",
        *card.omitted,
    ]
    return "## What this does not show\n\n" + "\n".join(f"- {point}" for point in points)


def _again(card: Card) -> str:
    """How to run it again."""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(card.versions.items()))
    return (
        f"## Again\n\n```\n{card.command}\n```\n\nData: {card.data}, SHA-256 of the test images as "
        f"read `{card.data_sha256}`. {versions}."
    )


def _picture(name: str, pictures: Sequence[str]) -> str:
    """The picture with its caption, if it is there."""
    return f"![{_CAPTIONS[name]}]({name})" if name in pictures else ""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; numbers are set right."""
    marks = [
        "---:" if "%" in title or title in {"n", "AUROC", "epsilon"} else "---" for title in header
    ]
    lines = [header, marks, *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _accuracy(row: Row) -> str:
    """Accuracy with its interval, in per cent."""
    return f"**{_number(row.accuracy)}** ({_number(row.low)} to {_number(row.high)})"


def _number(share: float) -> str:
    """A share in per cent without the sign."""
    return f"{100 * share:.1f}"


def _percent(share: float) -> str:
    """A share in per cent."""
    return f"{100 * share:.1f} %"


def command_line(bundle: str, version: int, options: Mapping[str, object]) -> str:
    """The command that makes the card again; the data set's place is the reader's own."""
    settings = " ".join(
        f"--{name}" if value is True else f"--{name} {value}"
        for name, value in options.items()
        if value is not False
    )
    return f"limbeck-train evaluate models/{bundle}/{version} --data <folder> {settings}"
