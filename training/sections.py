"""The sections of a card's page beyond the headline's own: what else was tried."""

from collections.abc import Sequence

from training.ablation import SERVED, TEACHERS
from training.card import Card, wilson_interval
from training.comparison import difference
from training.markdown import (
    NORMS,
    SEES,
    access,
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
        f"Each model attacked {access(card)}, {NORMS[steps.norm]} {steps.epsilon:.4g}; "
        f"PGD: {steps.attack}; n = {steps.n}, seed {steps.seed}. More steps must not help the "
        "defence: where the longest attack leaves more images standing than a shorter one, "
        "gradients are masked. PGD starts at random, and may get less far in few steps than FGSM."
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


def cost_section(card: Card) -> str:
    """What the student costs, and what it gives away to the best of its teachers."""
    parts = []
    if card.cost is not None:
        cost, (channels, height, width) = card.cost, card.cost.image
        parts.append(
            f"The purifier takes {cost.multiply_adds:,} multiply-adds for an image of "
            f"{width}x{height}x{channels}, and {cost.milliseconds:.2f} ms for one image at a time "
            f"on one CPU thread ({cost.runtime}, {cost.processor}; median of {cost.runs} runs)."
        )
    by_key = {item.key: item for item in card.ablations}
    teachers = [by_key[key] for key in TEACHERS if key in by_key]
    if SERVED in by_key and teachers:
        best = max(teachers, key=lambda item: item.end_to_end.accuracy)
        ours, theirs = by_key[SERVED].end_to_end, best.end_to_end
        gap = difference(theirs, ours)
        parts.append(
            f"Under one and the same attack end-to-end ({ours.attack}; n = {ours.n}, seed "
            f"{ours.seed}) the student keeps {percent(ours.accuracy)} and the best of its teachers "
            f"{percent(theirs.accuracy)} ({best.title}): {100 * gap.value:+.1f} points, with a "
            f"95 % interval of {100 * gap.low:+.1f} to {100 * gap.high:+.1f} that takes the "
            "samples for independent. The attack goes by gradients, which flatters what masks them."
        )
    return section("Cost", *parts) if parts else ""


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
