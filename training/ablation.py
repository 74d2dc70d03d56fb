"""The ablation: what each way of teaching a purifier is worth, beside the student served."""

from collections.abc import Iterable

from training.adversary import Attacked, is_correct
from training.autoattack import VERSION
from training.card import Ablation
from training.networks import multiply_adds
from training.stages import kind_of
from training.trial import OWN_VERSION, Trial
from training.white_box import brief_attack, brief_name

SERVED = "student"
TEACHERS = ("normal_teacher", "adversarial_teacher")
# Best known first; those that the weights lack are left out of the card. Of an ablation's student
# there may be several, `ablation_both_2` the second.
TITLES = {
    "student": "The student that is served",
    "normal_teacher": "Normal teacher itself",
    "adversarial_teacher": "Adversarial teacher itself",
    "ablation_normal": "Student of the normal teacher only",
    "ablation_adversarial": "Student of the adversarial teacher only",
    "ablation_both": "Student of both teachers",
    "ablation_none": "Student without teachers",
}


def purifiers(names: Iterable[str]) -> list[str]:
    """Those of the names that the ablation is about, students of one kind together."""
    order = list(TITLES)
    known = [(order.index(kind), name) for name in names if (kind := kind_of(name)) in TITLES]
    return [name for _, name in sorted(known)]


def ablation_of(trial: Trial, name: str, bare: Attacked) -> Ablation:
    """One purifier clean, grey-box and end-to-end.

    Args:
        trial: holds the purifier under `name`.
        name: of the purifier.
        bare: AutoAttack on the classifier alone, for the grey-box row.
    """
    protocol = trial.protocol
    images, labels = trial.first(protocol.ablation_n)
    pipeline = trial.pipeline(name)

    attacked = brief_attack(
        trial, f"{name} - end-to-end", pipeline, images, labels, protocol.epsilon
    )
    kind = kind_of(name)
    title = TITLES[kind] + name.removeprefix(kind).replace("_", ", seed ")
    channels, height, width = images.shape[1:]
    cost = multiply_adds(trial.networks[name], (channels, height, width), images.device)
    return Ablation(
        key=name,
        title=title,
        multiply_adds=cost,
        clean=trial.clean_row(name, f"{title}, clean", is_correct(pipeline, images, labels), name),
        grey_box=trial.row(
            f"{name}_grey_box",
            f"{title}, grey-box",
            is_correct(pipeline, bare.images[: len(images)], labels),
            defence=name,
            sees="classifier",
            attack="AutoAttack on the classifier alone",
            versions=VERSION,
        ),
        end_to_end=trial.row(
            f"{name}_end_to_end",
            f"{title}, end-to-end",
            attacked.robust,
            defence=name,
            sees="everything",
            attack=brief_name(trial),
            versions=f"{VERSION}; {OWN_VERSION}",
        ),
    )
