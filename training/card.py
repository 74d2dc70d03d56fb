"""The robustness card: the content of `card.json`."""

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

CARD_SCHEMA_VERSION = 1

Sees = Literal["nothing", "classifier", "everything", "scores", "surrogate"]
Norm = Literal["linf", "l2"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Row(_Frozen):
    """One accuracy."""

    key: str
    title: str
    defence: str = Field(description="what stands before the classifier")
    attack: str = Field(description="the attack with its settings, empty for clean images")
    versions: str = Field(description="of the attack's code")
    sees: Sees = Field(description="what the attack has access to")
    norm: Norm | None
    epsilon: float | None = Field(description="radius in [0, 1] pixel units")
    n: int
    correct: int
    accuracy: float
    low: float = Field(description="lower end of the 95 % Wilson interval")
    high: float = Field(description="upper end of the 95 % Wilson interval")
    seed: int | None


class Ablation(_Frozen):
    """One purifier: the student that is served, a teacher, or one taught in another way."""

    key: str
    title: str
    clean: Row
    grey_box: Row
    end_to_end: Row
    multiply_adds: int | None = Field(default=None, description="of the purifier, for one image")

    @property
    def kinds(self) -> dict[str, Row]:
        """The rows by what is measured, in words."""
        return {"clean": self.clean, "grey-box": self.grey_box, "end-to-end": self.end_to_end}


class Cost(_Frozen):
    """What the purifier that is served takes for one image."""

    image: tuple[int, int, int] = Field(description="channels, height, width")
    multiply_adds: int
    milliseconds: float = Field(description="at batch 1 on one CPU thread, the median of all runs")
    runs: int
    runtime: str
    processor: str


class SweepPoint(_Frozen):
    """Accuracies under attack at one epsilon."""

    epsilon: float
    bare: float = Field(description="of the classifier alone, attacked alone")
    purified: float = Field(description="of purifier and classifier, attacked together")


class Sweep(_Frozen):
    """Accuracy over epsilon."""

    attack: str
    versions: str
    norm: Norm
    n: int
    seed: int
    points: tuple[SweepPoint, ...]


class StepsPoint(_Frozen):
    """Accuracies under one attack of the table of steps, each model attacked itself."""

    attack: str
    steps: int
    bare: float
    purified: float


class Steps(_Frozen):
    """Accuracy over the attack's number of steps: more of them must not help the defence."""

    attack: str = Field(description="what the attacks have in common")
    versions: str
    norm: Norm
    epsilon: float
    n: int
    seed: int
    points: tuple[StepsPoint, ...]
    autoattack_bare: float = Field(description="on the same images under AutoAttack")
    autoattack_purified: float


class CorruptionPoint(_Frozen):
    """Accuracies on images that one common corruption spoils."""

    kind: str
    severity: int
    setting: str = Field(description="the severity's parameter, for people")
    bare: float
    purified: float


class Corruptions(_Frozen):
    """Accuracy on images that nobody attacks and that are spoilt all the same."""

    source: str = Field(description="how images were spoilt, and by which version of what")
    n: int
    seed: int = Field(description="of the noise")
    clean_bare: float = Field(description="of the same images, unspoilt")
    clean_purified: float
    points: tuple[CorruptionPoint, ...]


class Detection(_Frozen):
    """How well the shift tells attacked images from clean ones."""

    key: str
    title: str
    attack: str
    versions: str
    sees: Sees
    norm: Norm
    epsilon: float
    seed: int
    n_clean: int
    n_attacked: int
    auroc: float
    threshold_bits: float
    false_alarms: float = Field(description="share of clean test images over the threshold")
    detected: float = Field(description="share of attacked images over the threshold")


class Check(_Frozen):
    """One test of the evaluation itself that did not stop it."""

    key: str
    passed: bool
    finding: str


class Card(_Frozen):
    """The content of `card.json`."""

    schema_version: int = CARD_SCHEMA_VERSION
    bundle: str
    version: int
    source: Literal["weights", "onnx"] = Field(
        default="weights", description="the files that purifier and classifier were taken from"
    )
    quick: bool = Field(description="shortened attacks: a trial run, not a measurement")
    data: str
    data_sha256: str
    norm: Norm
    epsilon: float
    n: int
    seed: int
    headline: Row = Field(description="the worst case over all attacks, image by image")
    rows: tuple[Row, ...]
    ablations: tuple[Ablation, ...]
    sweep: Sweep
    # Cards from before these were measured lack them.
    unseen: tuple[Row, ...] = Field(
        (), description="attacks of another norm than that of training; no part of the headline"
    )
    cost: Cost | None = None
    steps: Steps | None = None
    shared_encoder: bool = Field(
        default=False,
        description="whether all students began with one encoder, which no teacher had a part in",
    )
    corruptions: Corruptions | None = None
    may_resist: bool = Field(
        default=False,
        description="whether the classifier may have been trained against attacks, so that its "
        "survival is a warning and no error",
    )
    detection: tuple[Detection, ...]
    checks: tuple[Check, ...]
    attack_warnings: tuple[str, ...]
    omitted: tuple[str, ...]
    versions: dict[str, str]
    command: str
    training: str = Field(
        default="", description="the command that trained the bundle and its teachers"
    )

    def row(self, key: str) -> Row:
        """The row of that key, those of unseen attacks included.

        Raises:
            KeyError: the card has none.
        """
        return {row.key: row for row in (*self.rows, *self.unseen)}[key]


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share.

    Source:
        Wilson 1927.
    """
    if n <= 0:
        raise ValueError(f"a share needs n > 0, got {n}")
    z = 1.959963984540054
    share = correct / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def accuracy_row(
    key: str,
    title: str,
    correct: Tensor,
    *,
    defence: str,
    sees: Sees = "nothing",
    attack: str = "",
    versions: str = "",
    norm: Norm | None = None,
    epsilon: float | None = None,
    seed: int | None = None,
) -> Row:
    """A row from the images that were right, (N,) bool."""
    n, right = len(correct), int(correct.sum())
    low, high = wilson_interval(right, n)
    return Row(
        key=key,
        title=title,
        defence=defence,
        attack=attack,
        versions=versions,
        sees=sees,
        norm=norm,
        epsilon=epsilon,
        n=n,
        correct=right,
        accuracy=right / n,
        low=low,
        high=high,
        seed=seed,
    )
