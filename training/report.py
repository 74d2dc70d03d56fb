"""CARD.md: the card as a page for people."""

from collections.abc import Mapping, Sequence

from app.bundle import WEIGHTS_FILE
from training.ablation_section import ablation_section
from training.card import Card
from training.checks import NOISE, SQUARE_ALONE
from training.markdown import (
    NORMS,
    access,
    accuracy_table,
    number,
    percent,
    picture,
    section,
    table,
)
from training.sections import (
    corruptions_section,
    cost_section,
    detection_section,
    steps_section,
    unseen_section,
)
from training.steps import NOISE as STEPS_NOISE
from training.steps import STEPS_BARE


def report(card: Card, pictures: Sequence[str]) -> str:
    """The page.

    Args:
        card: what was measured.
        pictures: the names of the plots that lie beside the page.
    """
    parts = [
        _opening(card),
        _accuracies(card),
        picture("examples.png", pictures),
        _sweep(card, pictures),
        steps_section(card),
        unseen_section(card),
        corruptions_section(card),
        cost_section(card),
        ablation_section(card),
        detection_section(card, pictures),
        _checks(card),
        _limits(card),
        picture("training.png", pictures),
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
        f"**{percent(headline.accuracy)} ({percent(headline.low)} to {percent(headline.high)}) "
        f"of the test images of {card.data} are still classified correctly when an attacker who "
        f"knows purifier and classifier may change every pixel by {NORMS[card.norm]} "
        f"{card.epsilon:.4g}**, the worst case over all attacks below, image by image; "
        f"{percent(clean.accuracy)} when nobody attacks."
    )
    if card.norm == "l2":
        lines[-1] = lines[-1].replace("change every pixel by", "change the image by")
    if card.source == "onnx":
        lines.append(
            "Purifier and classifier are the ONNX files that the service runs, rebuilt in PyTorch "
            "where attacks need gradients; their answers to images of the data set are those of "
            "onnxruntime to within 0.001."
        )
    return "\n\n".join(lines)


def _accuracies(card: Card) -> str:
    """The main table."""
    intro = (
        "Accuracies with 95 % confidence intervals (Wilson). Epsilon is in pixel units of [0, 1]; "
        f"attacked rows: {NORMS[card.norm]} {card.epsilon:.4g}, seed {card.seed}."
    )
    return section("Accuracy", intro, accuracy_table(card.rows))


def _sweep(card: Card, pictures: Sequence[str]) -> str:
    """Accuracy over epsilon."""
    rows = [
        [f"{point.epsilon:.4g}", number(point.bare), number(point.purified)]
        for point in card.sweep.points
    ]
    intro = (
        f"Each model attacked {access(card)}: {card.sweep.attack}; n = {card.sweep.n}. Where any "
        "image is allowed it must reach 0."
    )
    found = table(["epsilon", "classifier alone, %", "purified, %"], rows)
    return section("Over epsilon", intro, picture("epsilon.png", pictures), found)


def _checks(card: Card) -> str:
    """The evaluation's tests of itself."""
    rows = [["passed" if check.passed else "**failed**", check.finding] for check in card.checks]
    has_teacher = any(item.key == "normal_teacher" for item in card.ablations)
    survivors = "the undefended classifier" + (" or the normal teacher" if has_teacher else "")
    far = "accuracy does not fall to chance at the largest epsilon"
    if card.headline.sees == "surrogate":
        text = (
            f"The attacks had a surrogate's gradients: that {survivors} survives, or that {far}, "
            "is a warning here and stops nothing."
        )
    elif card.may_resist:
        text = (
            f"The classifier may have been trained against attacks: that {survivors} survives is a "
            f"warning here. The evaluation stops with an error if {far}."
        )
    else:
        text = f"The evaluation stops with an error if {survivors} survives, or if {far}."
    text += (
        " The checks below look for masked gradients: attacks that see less must not succeed more. "
        f"By chance PGD and the transfer may, by {percent(NOISE)} of the images, and fewer steps "
        f"by {percent(STEPS_NOISE)}; Square alone may break one, or {percent(SQUARE_ALONE)}, as in "
        "the check of AutoAttack's authors."
    )
    failed = {check.key for check in card.checks if not check.passed}
    if failed:
        suspect = "classifier" if failed == {STEPS_BARE} else "defence"
        text += (
            f"\n\n**A check failed: the {suspect} may mask gradients, and stronger attacks may "
            "exist. Trust the worst case over all attacks, and trust it less.**"
        )
    warnings = "".join(f"\n- {warning}" for warning in card.attack_warnings)
    return section(
        "Checks of the evaluation",
        text,
        table(["", "finding"], rows),
        f"Warnings:\n{warnings}" if warnings else "",
    )


def _limits(card: Card) -> str:
    """What the card does not show."""
    tried = (
        f"Only {NORMS[card.norm]} perturbations were tried: nothing here speaks of other norms, "
    )
    if card.unseen or card.corruptions:
        tried = (
            f"The worst case speaks of {NORMS[card.norm]} perturbations alone. Beyond it, only "
            "what stands above was tried: nothing here speaks of "
        )
    points = [
        f"{tried}patches, rotations or other images than those of the test set.",
        "Attacked images were float32 as the attack made them, not rounded to 8 bits, which "
        "favours the attacker slightly.",
        "An attack that fails proves nothing. The figures are upper bounds on robustness, "
        f"measured on {card.n} random test images.",
        "Grey-box figures hold only while nobody who attacks knows of the purifier. What the "
        "classifier alone gets wrong, and what the attack on it could not break, is purified as "
        "it is.",
        *card.omitted,
    ]
    return "## What this does not show\n\n" + "\n".join(f"- {point}" for point in points)


def _again(card: Card) -> str:
    """How to run it again."""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(card.versions.items()))
    commands = "\n".join(filter(None, (card.training, card.command)))
    whole = card.training and (
        f"The first command trains, the second judges. Of a bundle that is shipped without "
        f"`{WEIGHTS_FILE}` it makes the rows that need neither teachers nor a surrogate"
        + (", with `--out <folder>`, for they do not replace this card" if card.ablations else "")
        + ".\n\n"
    )
    return (
        f"## Again\n\n```\n{commands}\n```\n\n{whole}"
        f"Data: {card.data}, SHA-256 of the test images as read `{card.data_sha256}`. {versions}."
    )


def command_line(bundle: str, version: int, options: Mapping[str, object]) -> str:
    """The command that makes the card again; the data set's place is the reader's own."""
    settings = " ".join(
        f"--{name}" if value is True else f"--{name} {value}"
        for name, value in options.items()
        if value is not False
    )
    return f"limbeck-train evaluate models/{bundle}/{version} --data <folder> {settings}"
