"""The recipes: every number that training depends on, in one place.

A recipe is a frozen tree of dataclasses. `paper` is our reading of Koo, Chae, Lee 2023: adversarial
examples come from attacks on the bare classifier. `hardened` attacks purifier and classifier
together, which is what an attacker who knows the purifier does.
"""

import dataclasses
import json
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Shape:
    """Feature maps and extra convolutions of each halving stage, outermost first."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    residual: bool = False


@dataclass(frozen=True)
class Augmentation:
    """Random changes of each training image; zero switches one off."""

    shift: float = 0.0  # of the image's side
    rotation_degrees: float = 0.0
    scale: float = 0.0  # 0.1: from 0.9 to 1.1
    flip: bool = False
    contrast: float = 0.0


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a stage learns (AdamW, one cycle)."""

    epochs: int
    batch_size: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    ema_decay: float = 0.0  # per step, of the averaged weights that are kept; 0: the last weights
    augmentation: Augmentation = Augmentation()


@dataclass(frozen=True)
class Attack:
    """The PGD that makes the training examples."""

    through: Literal["classifier", "pipeline"]
    steps: int
    step: float  # of epsilon
    epsilon_scale: float = 1.0  # of the recipe's epsilon
    ramp_epochs: float = 0.0  # epsilon grows linearly from 0 over this many epochs


@dataclass(frozen=True)
class ClassifierStage:
    """Natural training of the classifier."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    schedule: Schedule
    dropout: float = 0.1
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class TeacherStage:
    """Training of one teacher; weights of the terms of `losses.teacher_loss`."""

    schedule: Schedule
    attack: Attack | None
    pixels: float = 1.0
    cross_entropy: float = 0.0
    clean_cross_entropy: float = 0.0
    agreement: float = 0.0


@dataclass(frozen=True)
class StudentStage:
    """Distillation of the student; weights of the terms of `losses.distillation_loss`.

    `normal_share` is the weight of the normal teacher in the ensemble, on clean and on attacked
    images; the adversarial teacher has the rest.
    """

    schedule: Schedule
    attack: Attack
    pixels: float = 1.0
    logits: float = 0.0
    cross_entropy: float = 0.0
    clean_cross_entropy: float = 0.0
    normal_share: tuple[float, float] = (0.8, 0.5)


@dataclass(frozen=True)
class Recipe:
    """Everything that one bundle's training depends on, beside the data.

    Bundles from before a setting marked `later` have its default.
    """

    name: str
    epsilon: float  # L-inf, in [0, 1] pixel units
    classifier: ClassifierStage
    teacher: Shape
    student: Shape
    normal_teacher: TeacherStage
    adversarial_teacher: TeacherStage
    distillation: StudentStage
    ablation: Schedule  # of each of the four ablation students
    surrogate: Schedule  # of the separately trained pipeline that transfer attacks use
    seed: int = 0
    validation_fraction: float = 0.05
    # The evaluation's alone: nothing trains against it. None: 2.0 for grey images, 0.5 for colour.
    unseen_l2: float | None = field(default=None, metadata={"later": True})


_MNIST_AUGMENTATION = Augmentation(shift=0.07, rotation_degrees=10.0, scale=0.1)

_MNIST_CLASSIFIER = ClassifierStage(
    widths=(16, 32, 64),
    depths=(0, 1, 0),
    schedule=Schedule(epochs=8, learning_rate=4e-3, augmentation=_MNIST_AUGMENTATION),
)

_BARE = Attack(through="classifier", steps=5, step=0.3)

PAPER = Recipe(
    name="paper",
    epsilon=0.3,
    classifier=_MNIST_CLASSIFIER,
    teacher=Shape(widths=(32, 72), depths=(0, 1)),
    student=Shape(widths=(16, 32), depths=(0, 1)),
    normal_teacher=TeacherStage(schedule=Schedule(epochs=2, batch_size=64), attack=None),
    adversarial_teacher=TeacherStage(
        schedule=Schedule(epochs=1, batch_size=64, ema_decay=0.995), attack=_BARE
    ),
    distillation=StudentStage(
        schedule=Schedule(epochs=2, batch_size=64, ema_decay=0.998), attack=_BARE
    ),
    ablation=Schedule(epochs=1, batch_size=64, ema_decay=0.995),
    surrogate=Schedule(epochs=1, batch_size=64, ema_decay=0.995),
)

# Attacks well beyond epsilon: accuracy falls off a cliff just past the radius that was trained for,
# and at epsilon_scale 1.05 the cliff begins at epsilon itself. The classifier's terms and epsilon
# grow together: at full weight from the start they keep an untrained purifier from learning.
_THROUGH = Attack(through="pipeline", steps=7, step=0.25, epsilon_scale=1.2, ramp_epochs=1.0)
_THROUGH_QUICKLY = replace(_THROUGH, steps=5, step=0.35)

# Robustness end to end is limited by capacity and by time, not by overfitting: attacked training
# images fare no better than new ones. So wider networks than the paper's, and many epochs.
HARDENED = replace(
    PAPER,
    name="hardened",
    teacher=Shape(widths=(48, 104), depths=(0, 1)),
    student=Shape(widths=(24, 48), depths=(0, 1)),
    adversarial_teacher=TeacherStage(
        schedule=Schedule(epochs=2, batch_size=64, ema_decay=0.998),
        attack=_THROUGH_QUICKLY,
        cross_entropy=1.0,
        clean_cross_entropy=0.3,
        agreement=0.2,
    ),
    distillation=StudentStage(
        schedule=Schedule(epochs=8, batch_size=64, ema_decay=0.999),
        attack=replace(_THROUGH, epsilon_scale=1.25),
        logits=0.5,
        cross_entropy=1.0,
        clean_cross_entropy=0.5,
    ),
    surrogate=Schedule(epochs=2, batch_size=64, ema_decay=0.998),
)

RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in (PAPER, HARDENED)}


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain JSON values."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return plain


def recipe_of(settings: Mapping[str, Any]) -> Recipe:
    """The recipe that `settings_of` wrote.

    Raises:
        ValueError: a setting is missing (unless it came later), unknown or of another type.
    """
    recipe: Recipe = _built(Recipe, settings, "recipe")
    return recipe


def overridden(recipe: Recipe, assignments: Iterable[str]) -> Recipe:
    """The recipe with `path.to.setting=value` applied, values in JSON.

    Raises:
        ValueError: an assignment names no setting or has a value of another type.
    """
    settings = settings_of(recipe)
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not separator:
            raise ValueError(f"--set wants path=value, got {assignment!r}")
        *parents, leaf = path.strip().split(".")
        node: Any = settings
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if not isinstance(node, dict) or leaf not in node:
            known = ", ".join(node) if isinstance(node, dict) else "none"
            raise ValueError(f"no setting {path!r} in recipe {recipe.name}; known there: {known}")
        try:
            node[leaf] = json.loads(text)
        except ValueError:
            node[leaf] = text.strip()
    return recipe_of(settings)


def _built(wanted: Any, value: Any, path: str) -> Any:
    """The plain value as the wanted type."""
    origin, arguments = get_origin(wanted), get_args(wanted)
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        if not isinstance(value, Mapping):
            raise ValueError(f"{path} must be an object, got {value!r}")
        hints = get_type_hints(wanted)
        fields = dataclasses.fields(wanted)
        needed = {item.name for item in fields if "later" not in item.metadata}
        wrong = (needed - set(value)) | (set(value) - {item.name for item in fields})
        if wrong:
            raise ValueError(f"{path}: settings {sorted(wrong)} are unknown or missing")
        return wanted(
            **{name: _built(hints[name], value[name], f"{path}.{name}") for name in value}
        )
    if origin is types.UnionType:
        if value is None:
            return None
        return _built(next(a for a in arguments if a is not type(None)), value, path)
    if origin is tuple and isinstance(value, list | tuple):
        items = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(items) == len(value):
            return tuple(_built(t, v, path) for t, v in zip(items, value, strict=True))
    elif origin is Literal and value in arguments:
        return value
    elif wanted is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(wanted, type) and type(value) is wanted:
        return value
    raise ValueError(f"{path} must be {wanted}, got {value!r}")
