"""The rows of the card, from what the attacks left standing."""

from torch import Tensor

from training.adversary import Attacked, is_correct
from training.autoattack import VERSION
from training.card import Detection, Row, accuracy_row
from training.detection import auroc, shifts
from training.trial import OWN_VERSION, Trial
from training.white_box import LOSSES, WhiteBox, attack_name, autoattack_settings


def clean_rows(trial: Trial, images: Tensor, labels: Tensor) -> list[Row]:
    """Clean accuracy on all test images, without and with the purifier."""
    bare = is_correct(trial.networks["classifier"], images, labels)
    purified = is_correct(trial.pipeline(), images, labels)
    return [
        accuracy_row("bare_clean", "Clean, without purifier", bare, defence="none"),
        accuracy_row("purified_clean", "Clean, purified", purified, defence="student"),
    ]


def bare_rows(trial: Trial, bare: Attacked) -> list[Row]:
    """AutoAttack on the classifier alone, without the purifier and with it (grey-box)."""
    attack = attack_name(autoattack_settings(trial))
    return [
        trial.row(
            "bare_autoattack",
            "Undefended: AutoAttack on the classifier",
            bare.robust,
            defence="none",
            sees="classifier",
            attack=attack,
            versions=VERSION,
        ),
        trial.row(
            "grey_box",
            "Grey-box: AutoAttack on the classifier, then purified",
            is_correct(trial.pipeline(), bare.images, trial.labels),
            defence="student",
            sees="classifier",
            attack=attack,
            versions=VERSION,
        ),
    ]


def white_box_rows(trial: Trial, found: WhiteBox) -> list[Row]:
    """The attacks on purifier and classifier together, and their worst case."""
    protocol, settings = trial.protocol, autoattack_settings(trial)
    rows = [
        trial.row(
            "end_to_end_autoattack",
            "End-to-end AutoAttack",
            found.autoattack.robust,
            defence="student",
            sees="everything",
            attack=attack_name(settings),
            versions=VERSION,
        )
    ]
    rows += pgd_rows(trial, found)
    rows.append(
        trial.row(
            "end_to_end_square",
            "End-to-end Square",
            found.square.robust,
            defence="student",
            sees="scores",
            attack=f"Square, {protocol.queries:,} queries",
            versions=VERSION,
        )
    )
    if found.transfer is not None:
        rows.append(
            trial.row(
                "transfer",
                "Transfer from a surrogate purifier and classifier",
                found.transfer.robust,
                defence="student",
                sees="surrogate",
                attack=f"PGD-{protocol.pgd_steps}, cross-entropy and margin loss, worst of both",
            )
        )
    rows.append(worst_row(trial, found))
    return rows


def pgd_rows(trial: Trial, found: WhiteBox) -> list[Row]:
    """PGD on purifier and classifier together, a row for each loss."""
    settings = f"PGD-{trial.protocol.pgd_steps}, {trial.protocol.pgd_restarts} random starts"
    return [
        trial.row(
            f"end_to_end_pgd_{name.replace('-', '_')}",
            f"End-to-end PGD, {name}",
            found.pgd[name].robust,
            defence="student",
            sees="everything",
            attack=f"{settings}, {name} loss",
        )
        for name in LOSSES
    ]


def worst_row(trial: Trial, found: WhiteBox) -> Row:
    """The headline: an image counts only if no attack of any kind succeeded on it."""
    return trial.row(
        "worst_case",
        "End-to-end, worst case of all attacks, image by image",
        found.worst,
        defence="student",
        sees="everything",
        attack="all of the end-to-end attacks and the transfer",
        versions=f"{VERSION}; {OWN_VERSION}",
    )


def attacked_shifts(trial: Trial, bare: Attacked, found: WhiteBox) -> dict[str, tuple[str, Tensor]]:
    """The images that detection is tried on: title and shifts (M,) of each kind.

    An attack leaves images alone that were wrong from the start, and AutoAttack also those that it
    cannot break: these are clean, and would flatter or blur a detector.
    """
    clean_right = is_correct(trial.networks["classifier"], trial.images, trial.labels)
    right_together = is_correct(trial.pipeline(), trial.images, trial.labels)
    margin = found.pgd["margin"]
    worst = found.autoattack
    kinds = {
        "grey_box": ("Grey-box AutoAttack", bare.images[clean_right & ~bare.robust]),
        "end_to_end": ("End-to-end PGD, margin loss", margin.images[right_together]),
        "end_to_end_successes": (
            "End-to-end AutoAttack, successes only",
            worst.images[right_together & ~worst.robust],
        ),
    }
    return {
        key: (title, shifts(trial.networks["student"], trial.networks["classifier"], images))
        for key, (title, images) in kinds.items()
        if len(images)
    }


def detection_rows(
    trial: Trial, clean: Tensor, attacked: dict[str, tuple[str, Tensor]], threshold_bits: float
) -> tuple[Detection, ...]:
    """How well the shift tells attacked from clean test images; clean (M,) shifts in bits."""
    protocol = trial.protocol
    return tuple(
        Detection(
            key=key,
            title=title,
            attack=title,
            versions=OWN_VERSION if "PGD" in title else VERSION,
            sees="classifier" if key == "grey_box" else "everything",
            norm=protocol.norm,
            epsilon=protocol.epsilon,
            seed=protocol.seed,
            n_clean=len(clean),
            n_attacked=len(values),
            auroc=auroc(clean, values),
            threshold_bits=threshold_bits,
            false_alarms=float((clean > threshold_bits).double().mean()),
            detected=float((values > threshold_bits).double().mean()),
        )
        for key, (title, values) in attacked.items()
    )
