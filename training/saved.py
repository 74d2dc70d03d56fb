"""Adversarial examples in files, which anybody can count again.

`NAME.npy` holds the images as the attack made them, (N, C, H, W) float32 in [0, 1]; `NAME.json`
beside it says what they are. The clean images are those of the data set, under their names. Other
programs' examples need no more than norm, epsilon and those names.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from app.bundle import CLASSIFIER_FILE, PURIFIER_FILE, FileDigest, Manifest, digest
from training.adversary import Attacked, is_correct, logits_of
from training.attacks import Norm, margin_loss
from training.checks import ball_is_held
from training.data import Split, to_unit
from training.data_files import DataError
from training.files import write_whole
from training.state import State
from training.subject import Subject
from training.trial import Protocol, Trial

# In logits. Attacks stop right behind the border between two labels, and two programs that compute
# the same network differ in the last digits.
BORDER = 1e-2


class Described(BaseModel):
    """The content of the file beside the images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: FileDigest | None = Field(default=None, description="of the images")
    bundle: str = "a bundle"
    version: int | None = None
    graphs: dict[str, str] = Field(default={}, description="SHA-256 of the attacked graphs")
    attack: str = "an attack"
    norm: Norm
    epsilon: float
    seed: int = 0
    images: tuple[str, ...] = Field(description="<class>/<file> of each clean test image")
    labels: tuple[int, ...] | None = Field(
        default=None, description="positions among the bundle's labels"
    )
    standing: tuple[bool, ...] | None = Field(
        default=None, description="still classified correctly"
    )


@dataclass(frozen=True)
class Recount:
    """What a second count found.

    Attributes:
        described: what the file says of itself.
        standing: (N,) bool, as counted now.
        furthest: largest distance from a clean image, in the norm of the file.
        same: whether the file tells what stood, and of this bundle; another's counts may differ.
        border: images that the same bundle answers otherwise than when they were saved, all of them
            closer than `BORDER` to the border between two labels.
    """

    described: Described
    standing: Tensor
    furthest: float
    same: bool
    border: int


def describing(path: Path) -> Path:
    """The file beside the images.

    Raises:
        ValueError: the images' file is not called `.npy`.
    """
    if path.suffix != ".npy":
        raise ValueError(f"adversarial examples are saved as .npy, got {path}")
    return path.with_suffix(".json")


def save_examples(
    path: Path,
    attacked: Attacked,
    chosen: Split,
    protocol: Protocol,
    manifest: Manifest,
    attack: str,
) -> None:
    """Write the images and what they are.

    Args:
        path: `NAME.npy`.
        attacked: images and which of them stand.
        chosen: the clean test images, in the same order.
        protocol: that they were attacked by.
        manifest: of the bundle.
        attack: for people.
    """
    beside = describing(path)
    buffer = io.BytesIO()
    np.save(buffer, attacked.images.cpu().numpy(), allow_pickle=False)
    described = Described(
        file=digest(buffer.getvalue()),
        bundle=manifest.name,
        version=manifest.version,
        graphs=_graphs(manifest),
        attack=attack,
        norm=protocol.norm,
        epsilon=protocol.epsilon,
        seed=protocol.seed,
        images=chosen.names,
        labels=tuple(chosen.labels.tolist()),
        standing=tuple(attacked.robust.tolist()),
    )
    write_whole(path, buffer.getvalue())
    write_whole(beside, described.model_dump_json(indent=1).encode() + b"\n")


def read_examples(path: Path) -> tuple[Tensor, Described]:
    """The images and what they are.

    Raises:
        ValueError: a file is malformed or missing, or the images are not those that were saved.
    """
    content, beside = path.read_bytes(), describing(path)
    try:
        described = Described.model_validate_json(beside.read_bytes())
    except FileNotFoundError as error:
        raise ValueError(
            f"{beside} is not there: it names norm, epsilon and the clean image of each example"
        ) from error
    except ValidationError as error:
        raise ValueError(f"{beside}: {error}") from error
    if described.file is not None and digest(content) != described.file:
        raise ValueError(f"{path}: these are not the images that {beside.name} describes")
    try:
        images = np.load(io.BytesIO(content), allow_pickle=False)
    except (EOFError, ValueError) as error:
        raise ValueError(f"{path}: is no plain .npy file: {error}") from error
    count = len(described.images)
    plain = isinstance(images, np.ndarray) and images.dtype == np.float32 and images.ndim == 4
    if not plain or len(images) != count or count == 0:
        raise ValueError(f"{path}: {count or 'some'} images (N, C, H, W) of float32 wanted")
    if described.standing is not None and len(described.standing) != len(images):
        raise ValueError(f"{beside}: standing has another number of images")
    return torch.from_numpy(images), described


def recount(path: Path, subject: Subject) -> Recount:
    """Measure how far saved images are from their clean ones, and count them again.

    Raises:
        BrokenEvaluation: an image is further than epsilon from its clean one.
        DataError: the data set lacks an image, or has another label for it.
        ValueError: a file is malformed; or the same bundle answers otherwise than was saved, and
            not only for images at the border between two labels.
    """
    images, described = read_examples(path)
    clean = _clean(subject.test, described)
    unit, labels = to_unit(clean.images), clean.labels
    if images.shape != unit.shape:
        raise ValueError(f"{path}: images are {tuple(images.shape)}, clean {tuple(unit.shape)}")
    everything = torch.ones(len(images), dtype=torch.bool)
    ball_is_held(Attacked(images, everything), unit, described.epsilon, described.norm)
    protocol = Protocol(described.epsilon, described.norm, len(images), described.seed)
    pipeline = Trial(subject.networks, unit, labels, protocol, State(None)).pipeline()
    standing = is_correct(pipeline, images, labels)
    margins = margin_loss(logits_of(pipeline, images), labels).abs()
    same = described.standing is not None and _graphs(subject.manifest) == described.graphs
    changed = standing != torch.tensor(described.standing) if same else torch.zeros_like(standing)
    if bool((changed & (margins > BORDER)).any()):
        raise ValueError(
            f"{path}: {int(changed.sum())} images are answered otherwise than when they were "
            "saved, and not for the last digits"
        )
    order = float("inf") if described.norm == "linf" else 2.0
    moved = torch.linalg.vector_norm((images - unit).flatten(1), order, dim=1)
    return Recount(described, standing, float(moved.max()), same, int(changed.sum()))


def _clean(test: Split, described: Described) -> Split:
    """The clean test images of the saved ones, in their order."""
    places = {name: place for place, name in enumerate(test.names)}
    missing = [name for name in described.images if name not in places]
    if missing:
        raise DataError(f"the data set has no test image {missing[0]} ({len(missing)} are missing)")
    clean = test.subset([places[name] for name in described.images])
    if described.labels is not None and clean.labels.tolist() != list(described.labels):
        raise DataError("the data set or the bundle has other labels than the saved images")
    return clean


def _graphs(manifest: Manifest) -> dict[str, str]:
    """What identifies the two networks."""
    return {name: manifest.files[name].sha256 for name in (PURIFIER_FILE, CLASSIFIER_FILE)}
