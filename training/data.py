"""Data sets: folders or tar archives `train/<class>/*`, `test/<class>/*` of images.

Pixels go through `app.images`: a network is trained on exactly what the service will show it.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from app.bundle import MOST_SIDE, InputSpec
from app.errors import ServiceError
from app.images import decode_image, header_size
from training.data_files import DataError, raise_problems, read_files

SPLITS = ("train", "test")
_NEARLY_BLACK = 25  # of 255
_MOST_BETWEEN = 0.2  # of all pixels; 0.09 in MNIST


@dataclass(frozen=True)
class Split:
    """Decoded images of one split.

    Shape:
        images: (N, C, H, W), uint8.
        labels: (N,), int64, positions in `class_names`.
        names: N names `<class>/<file>`.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    def subset(self, indices: Sequence[int] | Tensor) -> "Split":
        """The images at the indices, in that order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        names = tuple(self.names[i] for i in chosen.tolist())
        return Split(self.images[chosen], self.labels[chosen], names, self.class_names)

    def sample(self, n: int, seed: int) -> "Split":
        """At most n of the images, a random choice in random order."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return self.subset(order[:n])


@dataclass(frozen=True)
class Dataset:
    """Both splits with what identifies them."""

    name: str
    train: Split
    test: Split
    spec: InputSpec
    sha256: str  # over all pixels and labels in order, whatever the file format


def to_unit(images: Tensor) -> Tensor:
    """Images uint8 as float32 in [0, 1]."""
    return images.to(torch.float32).div_(255)


def is_ink(split: Split) -> bool:
    """Whether the images are grey and nearly all of their pixels nearly black or white."""
    if split.images.shape[1] != 1:
        return False
    between = (split.images > _NEARLY_BLACK) & (split.images < 255 - _NEARLY_BLACK)
    return float(between.float().mean()) < _MOST_BETWEEN


def name_of(source: Path) -> str:
    """The data set's name: that of its folder or archive, without extensions."""
    return source.resolve().name.split(".")[0]


def load_dataset(
    source: Path, spec: InputSpec | None = None, class_names: Sequence[str] | None = None
) -> Dataset:
    """Read a whole data set.

    Args:
        source: a folder, or a tar archive (also compressed) of one.
        spec: the size and channels to convert every image to; without it all images must be of
            one size, and that is used, grey if all are grey.
        class_names: the classes in the order of their numbers, perhaps more than have images
            (default: those of train, sorted).

    Raises:
        DataError: a split or a class is missing, or files are unreadable or of an odd size;
            all of them are named at once.
    """
    files = {split: sorted(found) for split, found in read_files(source, SPLITS).items()}
    found = sorted({name.split("/")[0] for name, _ in files["train"]})
    names = tuple(class_names or found)
    if not set(found) <= set(names):
        unknown = ", ".join(sorted(set(found) - set(names)))
        raise DataError(f"{source}: train has classes that --labels lacks: {unknown}")
    unseen = {name.split("/")[0] for name, _ in files["test"]} - set(names)
    if unseen:
        raise DataError(f"{source}: test has classes that train lacks: {', '.join(sorted(unseen))}")
    if len(names) < 2:
        raise DataError(f"{source}: train has {len(names)} class(es); at least 2 are needed")
    given, spec = spec, spec or _announced_spec(files)
    (train, test), sizes = _decode(files, names, spec, source)
    if given is None:
        common = _common_spec(sizes, source)
        if common != spec:  # turned by EXIF, or of a format whose header was not read
            spec = common
            (train, test), _ = _decode(files, names, spec, source)
        if _is_grey(train.images) and _is_grey(test.images):
            spec = spec.model_copy(update={"channels": 1})
            train, test = (replace(split, images=split.images[:, :1]) for split in (train, test))
    return Dataset(name_of(source), train, test, spec, _digest(train, test))


def load_split(
    source: Path, split: str, spec: InputSpec, class_names: Sequence[str] | None = None
) -> Split:
    """Read one split; its classes are numbered as in `class_names` (default: its own, sorted).

    Raises:
        DataError: as `load_dataset`.
    """
    files = {split: sorted(read_files(source, (split,))[split])}
    found = sorted({name.split("/")[0] for name, _ in files[split]})
    names = tuple(class_names or found)
    if not set(found) <= set(names):
        unknown = ", ".join(sorted(set(found) - set(names)))
        raise DataError(f"{source}: {split} has classes that the bundle lacks: {unknown}")
    (decoded,), _ = _decode(files, names, spec, source)
    return decoded


def _announced_spec(files: Mapping[str, Sequence[tuple[str, bytes]]]) -> InputSpec:
    """The size that most headers announce, in colour."""
    headers = (header_size(content) for found in files.values() for _, content in found)
    sizes = Counter(size for size in headers if size and 1 <= min(size) <= max(size) <= MOST_SIDE)
    width, height = max(sizes, key=sizes.__getitem__, default=(1, 1))
    return InputSpec(channels=3, height=height, width=width)


def _common_spec(sizes: Mapping[str, tuple[int, int]], source: Path) -> InputSpec:
    """The one size of all images, in colour."""
    (width, height), _ = Counter(sizes.values()).most_common(1)[0]
    odd = [f"{name} ({w}x{h})" for name, (w, h) in sizes.items() if (w, h) != (width, height)]
    raise_problems(
        odd, source, f"not of the common size {width}x{height}; give a size to resize to"
    )
    if max(width, height) > MOST_SIDE:
        raise DataError(
            f"{source}: images of {width}x{height} are too large; give a size of at most "
            f"{MOST_SIDE} to resize to"
        )
    return InputSpec(channels=3, height=height, width=width)


def _digest(*splits: Split) -> str:
    """SHA-256 over class names, shapes, labels and pixels; files that are renamed keep it."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(f"{split.class_names}{tuple(split.images.shape)}".encode())
        digest.update(split.labels.numpy().tobytes())
        digest.update(split.images.numpy().tobytes())
    return digest.hexdigest()


def _is_grey(images: Tensor) -> bool:
    """Whether no image has a coloured pixel."""
    return bool((images == images[:, :1]).all())


def _decode(
    files: Mapping[str, Sequence[tuple[str, bytes]]],
    class_names: tuple[str, ...],
    spec: InputSpec,
    source: Path,
) -> tuple[list[Split], dict[str, tuple[int, int]]]:
    """Each split decoded, and the width and height that each file `<split>/<class>/<file>` had."""
    numbers = {name: number for number, name in enumerate(class_names)}
    splits, sizes, problems = [], {}, []
    for split, found in files.items():
        pixels = np.zeros((len(found), *spec.shape), np.uint8)
        for row, (name, content) in enumerate(found):
            try:
                decoded = decode_image(content, spec)
            except ServiceError as error:
                problems.append(f"{split}/{name} ({error})")
            else:
                pixels[row] = decoded.pixels
                sizes[f"{split}/{name}"] = decoded.width, decoded.height
        labels = torch.tensor([numbers[name.split("/")[0]] for name, _ in found])
        names = tuple(name for name, _ in found)
        splits.append(Split(torch.from_numpy(pixels), labels, names, class_names))
    raise_problems(problems, source)
    return splits, sizes
