"""The rows of the card, from what the attacks left standing."""

from torch import Tensor

from training.adversary import Attacked, is_correct
from training.autoattack import VERSION
from training.card import Row, accuracy_row
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
                attack=f"PGD-{protocol.pgd_steps} on all images, cross-entropy and margin loss, "
                "worst of both",
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
    transfer = "and the transfer" if found.transfer else "without a transfer"
    return trial.row(
        "worst_case",
        "End-to-end, worst case of all attacks, image by image",
        found.worst,
        defence="student",
        sees="everything",
        attack=f"all of the end-to-end attacks {transfer}",
        versions=f"{VERSION}; {OWN_VERSION}",
    )
