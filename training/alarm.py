"""How well the alarm, a shift over the threshold, tells each attack's images from clean ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from training.adversary import Attacked, is_correct
from training.attacks import Norm
from training.autoattack import VERSION
from training.card import Detection, Sees
from training.detection import auroc, shifts
from training.trial import OWN_VERSION, Trial
from training.unseen import Unseen
from training.white_box import LOSSES, WhiteBox


@dataclass(frozen=True)
class Group:
    """The images of one attack that detection is tried on.

    Attributes:
        key: in the card.
        title: for people.
        images: (M, C, H, W), all of them changed by the attack.
        sees: what the attack has access to.
        versions: of the attack's code.
        norm: of the ball.
        epsilon: radius, in [0, 1] pixel units.
    """

    key: str
    title: str
    images: Tensor
    sees: Sees
    versions: str
    norm: Norm
    epsilon: float


def attacked_groups(
    trial: Trial, bare: Attacked, found: WhiteBox, unseen: Unseen | None
) -> tuple[Group, ...]:
    """The images of every attack; attacks that changed nothing are left out.

    No attack changes images that were wrong from the start, and AutoAttack's parts leave alone what
    they cannot break: such images are clean, and would flatter or blur a detector.
    """
    right = is_correct(trial.pipeline(), trial.images, trial.labels)
    right_alone = is_correct(trial.networks["classifier"], trial.images, trial.labels)
    ball = trial.protocol.norm, trial.protocol.epsilon
    full: Sees = "everything"

    def all_of(attacked: Attacked) -> Tensor:
        return attacked.images[right]

    def fallen(attacked: Attacked) -> Tensor:
        tried = right[: len(attacked.images)]
        return attacked.images[tried & ~attacked.robust]

    alone = bare.images[right_alone & ~bare.robust]
    whole = found.autoattack
    groups = [
        Group("grey_box", "Grey-box AutoAttack", alone, "classifier", VERSION, *ball),
        Group(
            "end_to_end_successes",
            "End-to-end AutoAttack, successes only",
            fallen(whole),
            full,
            VERSION,
            *ball,
        ),
    ]
    for loss in LOSSES:
        # The key that cards have had from the first, when there was one loss.
        key = "end_to_end" if loss == "margin" else f"end_to_end_pgd_{loss.replace('-', '_')}"
        title = f"End-to-end PGD, {loss} loss"
        groups.append(Group(key, title, all_of(found.pgd[loss]), full, OWN_VERSION, *ball))
    square = "End-to-end Square, successes only"
    groups.append(Group("square", square, fallen(found.square), "scores", VERSION, *ball))
    if found.transfer is not None:
        title = "Transfer from a surrogate"
        images = all_of(found.transfer)
        groups.append(Group("transfer", title, images, "surrogate", OWN_VERSION, *ball))
    if unseen is not None:
        title = "Unseen L2, end-to-end, successes only"
        radius = trial.protocol.unseen_l2
        images = fallen(unseen.pipeline)
        groups.append(Group("unseen_l2", title, images, full, VERSION, "l2", radius))
    return tuple(group for group in groups if len(group.images))


def shifts_by_group(trial: Trial, groups: Sequence[Group]) -> dict[str, Tensor]:
    """The shifts of each group's images, in bits (M,)."""
    student, classifier = trial.networks["student"], trial.networks["classifier"]
    return {group.key: shifts(student, classifier, group.images).cpu() for group in groups}


def detection_rows(
    trial: Trial,
    clean: Tensor,
    groups: Sequence[Group],
    found: Mapping[str, Tensor],
    threshold_bits: float,
) -> tuple[Detection, ...]:
    """How well the shift tells each group's images from clean ones.

    Args:
        trial: that was attacked.
        clean: (N,) shifts of the clean test images, in bits.
        groups: the attacked images.
        found: their shifts by the groups' keys.
        threshold_bits: above it is an alarm; chosen on validation images.
    """
    return tuple(
        Detection(
            key=group.key,
            title=group.title,
            attack=group.title,
            versions=group.versions,
            sees=group.sees,
            norm=group.norm,
            epsilon=group.epsilon,
            seed=trial.protocol.seed,
            n_clean=len(clean),
            n_attacked=len(group.images),
            auroc=auroc(clean, found[group.key]),
            threshold_bits=threshold_bits,
            false_alarms=float((clean > threshold_bits).double().mean()),
            detected=float((found[group.key] > threshold_bits).double().mean()),
        )
        for group in groups
    )
