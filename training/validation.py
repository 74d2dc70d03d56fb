"""Which of the training images are kept for validation."""

import re
from collections import Counter
from collections.abc import Sequence

import torch

from training.data import Split
from training.data_files import DataError


def split_validation(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Training and validation images, separated by seed.

    Files named `<group>_<number>.*` are frames of one group, near-copies of each other: a group
    stays whole. A prefix of most of a class, or of more images than validation takes, is what a
    camera gives: it makes no group.

    Raises:
        DataError: a class has no training images left.
    """
    wanted = max(1, round(fraction * len(split)))
    groups = _groups(split.names, wanted)
    keys = sorted(groups)
    order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(seed)).tolist()
    validation: list[int] = []
    for position in order:
        if len(validation) >= wanted:
            break
        validation += groups[keys[position]]
    chosen = set(validation)
    training = split.subset([index for index in range(len(split)) if index not in chosen])
    emptied = sorted(set(map(_class_of, split.names)) - set(map(_class_of, training.names)))
    if emptied:
        raise DataError(
            f"with {len(chosen)} of {len(split)} images for validation nothing is left to train on "
            f"of the class(es) {', '.join(emptied)}; add images, or choose another seed"
        )
    return training, split.subset(sorted(chosen))


def _groups(names: Sequence[str], largest: int) -> dict[str, list[int]]:
    """The positions of the images that stay together, by the name of their group or their own."""
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        frame = re.fullmatch(r"(.+)_\d+\.[^.]+", name)
        groups.setdefault(frame[1] if frame else name, []).append(index)
    class_sizes = Counter(map(_class_of, names))
    for key, members in list(groups.items()):
        if len(members) > min(largest, class_sizes[_class_of(key)] // 2):
            del groups[key]
            groups.update({names[index]: [index] for index in members})
    return groups


def _class_of(name: str) -> str:
    """The class of an image `<class>/<file>`."""
    return name.split("/")[0]
