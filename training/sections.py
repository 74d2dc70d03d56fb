"""The sections of a card's page beyond the headline's own: what else was tried."""

from collections.abc import Sequence

from training.card import Card, wilson_interval
from training.markdown import (
    NORMS,
    SEES,
    accuracy_table,
    number,
    percent,
    picture,
    section,
    table,
)


def unseen_section(card: Card) -> str:
    """Attacks of a norm that nothing was trained against."""
    if not card.unseen:
        return ""
    first = card.unseen[0]
    assert first.norm is not None  # rows of attacks have one
    intro = (
        f"Perturbations of another kind than those of training: {NORMS[first.norm]} "
        f"{first.epsilon:.4g}, seed {first.seed}. They are no part of the worst case above."
    )
    return section(f"Unseen threat: {NORMS[first.norm]}", intro, accuracy_table(card.unseen))


def steps_section(card: Card) -> str:
    """Accuracy over the attack's number of steps."""
    if card.steps is None:
        return ""
    steps = card.steps
    rows = [[point.attack, number(point.bare), number(point.purified)] for point in steps.points]
    rows.append(["AutoAttack", number(steps.autoattack_bare), number(steps.autoattack_purified)])
    intro = (
        f"Each model attacked with full access to it, {NORMS[steps.norm]} {steps.epsilon:.4g}; "
        f"PGD: {steps.attack}; n = {steps.n}, seed {steps.seed}. More steps must not help the "
        "defence: where a longer attack leaves more images standing, gradients are masked."
    )
    header = ["attack", "classifier alone, %", "purified, %"]
    return section("Over the number of steps", intro, table(header, rows))


def corruptions_section(card: Card) -> str:
    """Accuracy on images that are spoilt and not attacked."""
    if card.corruptions is None:
        return ""
    found = card.corruptions
    rows = [["None", "-", "-", number(found.clean_bare), number(found.clean_purified)]]
    rows += [
        [
            point.kind,
            str(point.severity),
            point.setting,
            number(point.bare),
            number(point.purified),
        ]
        for point in found.points
    ]
    intro = (
        f"Images that nobody attacked and that are spoilt all the same; n = {found.n}, seed "
        f"{found.seed}. {found.source}. Deviations of noise are in pixel units of [0, 1]."
    )
    header = ["corruption", "severity", "setting", "classifier alone, %", "purified, %"]
    return section("Common corruptions", intro, table(header, rows))


def detection_section(card: Card, pictures: Sequence[str]) -> str:
    """Detection by shift."""
    if not card.detection:
        return ""
    rows = [
        [
            item.title,
            SEES[item.sees],
            f"{item.auroc:.3f}",
            number(item.detected),
            str(item.n_attacked),
        ]
        for item in card.detection
    ]
    first = card.detection[0]
    low, high = wilson_interval(round(first.false_alarms * first.n_clean), first.n_clean)
    intro = (
        "The shift is the Jensen-Shannon divergence, in bits, between the class probabilities "
        f"before and after purification. The threshold of {first.threshold_bits:.4g} bits was set "
        "to 1 % false alarms on clean validation images; on the clean test images it gives "
        f"{percent(first.false_alarms)} ({number(low)} to {number(high)}, n = {first.n_clean}). "
        "An attack is caught where the shift is over the threshold. The attacks did not know of "
        "the detector; one that does can avoid it."
    )
    header = ["attacked images", "the attack sees", "AUROC", "caught, %", "n"]
    shown = picture("detection.png", pictures)
    return section("Detection", intro, table(header, rows), shown)
