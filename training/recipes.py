"""What a recipe is: every number that training depends on, with its meaning, in one place.

A recipe is a frozen tree of dataclasses. The meaning of a setting is part of its type: recipe files
(`training.recipe_file`) take their comments from there. So is its range: no number is negative, and
most have narrower limits. The recipes themselves are in `training.recipe_book`.
"""

import dataclasses
import json
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from training.ranges import COUNT, NOT_NEGATIVE, POSITIVE, SEED, SHARE, Range


@dataclass(frozen=True)
class Shape:
    """The size of a purifier: widths and depths of its halving stages, outermost first."""

    widths: Annotated[tuple[int, ...], "feature maps after each halving stage", COUNT]
    depths: Annotated[tuple[int, ...], "extra convolutions in each stage"]
    residual: Annotated[bool, "add the output to the image instead of replacing it"] = False
    contrast_gain: Annotated[
        float | None,
        "steepness of the sigmoid about mid-grey that pixels go through first; none: no sigmoid",
        POSITIVE,
    ] = field(default=None, metadata={"later": True})
    stem: Annotated[
        int, "feature maps at the image's own size, around the halving stages; 0: none"
    ] = field(default=0, metadata={"later": True})
    skips: Annotated[
        bool, "the decoder also sees the encoder's features of the same size, not the last alone"
    ] = field(default=True, metadata={"later": True})
    pooled_maps: Annotated[
        int,
        "feature maps that the decoder begins with, drawn from the global average pooling of the "
        "encoder's last ones; 0: it begins with these themselves. Without skips only",
    ] = field(default=0, metadata={"later": True})

    def __post_init__(self) -> None:
        """Refuse what no network can be.

        Raises:
            ValueError: skips beside pooled maps.
        """
        if self.pooled_maps and self.skips:
            raise ValueError(
                f"pooled_maps={self.pooled_maps} goes without skips only: set skips to false, "
                "or pooled_maps to 0"
            )


@dataclass(frozen=True)
class Augmentation:
    """Random changes of each training image; zero switches one off."""

    shift: Annotated[
        float, "at most, in both directions, as a share of the side; alone in whole pixels", SHARE
    ] = 0.0
    rotation_degrees: Annotated[float, "at most, in both directions"] = 0.0
    scale: Annotated[float, "0.1: from 0.9 to 1.1", SHARE] = 0.0
    flip: Annotated[bool, "mirror half of the images, left to right"] = False
    contrast: Annotated[float, "0.1: contrast from 0.9 to 1.1, brightness by up to 0.05", SHARE] = (
        0.0
    )


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a stage learns (AdamW, one cycle)."""

    epochs: Annotated[int, "passes over the training images", COUNT]
    batch_size: Annotated[int, "images in one step", COUNT] = 128
    learning_rate: Annotated[float, "at the peak of the cycle", POSITIVE] = 3e-3
    weight_decay: Annotated[float, "of AdamW"] = 1e-4
    ema_decay: Annotated[
        float, "a step, of the averaged weights; 0 keeps the last weights", SHARE
    ] = 0.0
    augmentation: Annotated[Augmentation, "of this stage's images"] = Augmentation()


@dataclass(frozen=True)
class Attack:
    """The PGD that makes the training examples."""

    through: Annotated[
        Literal["classifier", "pipeline"],
        'what is attacked: the bare "classifier", or the "pipeline" of purifier and classifier',
    ]
    steps: Annotated[int, "gradient steps", COUNT]
    step: Annotated[float, "length of one, as a share of epsilon", POSITIVE]
    epsilon_scale: Annotated[float, "radius as a multiple of the recipe's epsilon", POSITIVE] = 1.0
    ramp_epochs: Annotated[float, "epsilon grows linearly from 0 over this many epochs"] = 0.0
    bare_share: Annotated[
        float,
        "share of each batch that is attacked through the bare classifier all the same",
        SHARE,
    ] = field(default=0.0, metadata={"later": True})


@dataclass(frozen=True)
class EncoderStage:
    """What the encoder of a hardened purifier learns before all else: to label attacked images.

    Alone, behind one linear layer that is thrown away. That takes a fraction of the work of a step
    through decoder and classifier, and gives the features that the purifier needs.
    """

    schedule: Annotated[Schedule, "of the encoder"]
    attack: Annotated[Attack, "makes its examples; always of encoder and linear layer"]
    clean_cross_entropy: Annotated[float, "weight: loss on clean images, beside attacked ones"] = (
        0.5
    )
    answers: Annotated[
        float,
        "share of what it learns that is the classifier's answer on the clean image, not the label",
        SHARE,
    ] = field(default=0.0, metadata={"later": True})


@dataclass(frozen=True)
class ClassifierStage:
    """Training of the classifier, natural unless there is an attack."""

    widths: Annotated[tuple[int, ...], "feature maps after each halving stage", COUNT]
    depths: Annotated[tuple[int, ...], "extra convolutions in each stage"]
    schedule: Annotated[Schedule, "of the classifier"]
    dropout: Annotated[float, "share of features dropped before the last layer", SHARE] = 0.1
    label_smoothing: Annotated[float, "share of each label spread over all classes", SHARE] = 0.0
    stem: Annotated[
        int, "feature maps at the image's own size, before the halving stages; 0: none"
    ] = field(default=0, metadata={"later": True})
    residual: Annotated[bool, "add the result of each extra convolution to what it was given"] = (
        field(default=False, metadata={"later": True})
    )
    attack: Annotated[
        Attack | None,
        "PGD on the classifier itself, whatever `through` says, makes half of its examples, and of "
        "those of the surrogate's classifier; none: natural training",
    ] = field(default=None, metadata={"later": True})


@dataclass(frozen=True)
class TeacherStage:
    """Training of one teacher; weights of the terms of `losses.teacher_loss`."""

    schedule: Annotated[Schedule, "of this teacher"]
    attack: Annotated[Attack | None, "makes its examples; none: clean images only"]
    pixels: Annotated[float, "weight: squared distance to the clean image"] = 1.0
    cross_entropy: Annotated[float, "weight: classifier's loss on purified attacked images"] = 0.0
    clean_cross_entropy: Annotated[float, "weight: the same on purified clean images"] = 0.0
    agreement: Annotated[float, "weight: KL from the classifier's answer on the clean image"] = 0.0


@dataclass(frozen=True)
class StudentStage:
    """Distillation of the student; weights of the terms of `losses.distillation_loss`."""

    schedule: Annotated[Schedule, "of the student"]
    attack: Annotated[Attack, "makes its examples"]
    pixels: Annotated[float, "weight: squared distance to the teachers' image"] = 1.0
    logits: Annotated[float, "weight: KL from the classifier's answer on the teachers' image"] = 0.0
    cross_entropy: Annotated[float, "weight: classifier's loss on purified attacked images"] = 0.0
    clean_cross_entropy: Annotated[float, "weight: the same on purified clean images"] = 0.0
    normal_share: Annotated[
        tuple[float, float],
        "weight of the normal teacher on clean and on attacked images; the other has the rest",
        SHARE,
    ] = (0.8, 0.5)


@dataclass(frozen=True)
class Recipe:
    """Everything that one bundle's training depends on, beside the data.

    Bundles from before a setting marked `later` have its default.
    """

    name: Annotated[str, "of the recipe; unless it is hardened, the bundle's name ends with it"]
    epsilon: Annotated[float, "L-inf radius, in [0, 1] pixel units", Range(0, 1, above=True)]
    classifier: Annotated[ClassifierStage, "first stage; frozen from then on"]
    teacher: Annotated[
        Shape,
        "of both teachers; the normal one always has skips, and never a sigmoid or pooled maps",
    ]
    student: Annotated[Shape, "of the student, which is the purifier that is served"]
    normal_teacher: Annotated[TeacherStage, "learns to give clean images back"]
    adversarial_teacher: Annotated[TeacherStage, "learns to give the clean image for the attacked"]
    distillation: Annotated[StudentStage, "the student learns from both teachers"]
    ablation: Annotated[Schedule, "of each of the four ablation students"]
    surrogate: Annotated[Schedule, "of the separate pipeline that transfer attacks use"]
    seed: Annotated[int, "of everything random", SEED] = 0
    validation_fraction: Annotated[
        float, "share of the training images kept for validation", SHARE
    ] = 0.05
    ablation_seeds: Annotated[
        int, "students of each way of teaching in the ablation, of as many seeds; 0: no ablation"
    ] = field(default=1, metadata={"later": True})
    encoder: Annotated[
        EncoderStage | None,
        "what the encoders of all purifiers but the normal teacher learn first; none: nothing. "
        "Teacher and student whose encoders are alike begin with the same one",
    ] = field(default=None, metadata={"later": True})
    surrogate_classifier: Annotated[
        Schedule | None, "of the surrogate's classifier; none: as of the classifier"
    ] = field(default=None, metadata={"later": True})
    surrogate_encoder: Annotated[
        Schedule | None, "of the surrogate's `encoder`, if any; none: as of the others"
    ] = field(default=None, metadata={"later": True})
    unseen_l2: Annotated[
        float | None,
        "L2 radius of the card's unseen threat, to which nothing is trained; "
        "none: 2.0 for grey images, 0.5 for colour",
    ] = field(default=None, metadata={"later": True})


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain JSON values."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return plain


def recipe_of(settings: Mapping[str, Any]) -> Recipe:
    """The recipe that `settings_of` wrote.

    Raises:
        ValueError: a setting is missing (unless it came later), unknown, of another type or out of
            its range.
    """
    recipe: Recipe = _built(Recipe, settings, "recipe")
    return recipe


def shape_of(recipe: Recipe, network: str) -> Shape:
    """The shape of one of the purifiers that the recipe trains, by the name of its stage.

    The normal teacher sees no perturbation that skips could let pass, and restores little without,
    or from means. A sigmoid would let it resist a little, and the evaluation counts on that it
    falls to attacks.

    Raises:
        ValueError: no purifier has that name.
    """
    if network == "normal_teacher":
        return dataclasses.replace(recipe.teacher, skips=True, pooled_maps=0, contrast_gain=None)
    if network == "adversarial_teacher":
        return recipe.teacher
    if network in ("student", "surrogate_purifier") or network.startswith("ablation_"):
        return recipe.student
    raise ValueError(f"no purifier is called {network}")


def binding_settings(part: Any) -> dict[str, Any]:
    """A part of a recipe as what a checkpoint is bound to.

    Settings that came later are left out at their defaults, which are what was done before: a run
    goes on with a program that knows of more.
    """
    plain: dict[str, Any] = {}
    for item in dataclasses.fields(part):
        value = getattr(part, item.name)
        if "later" in item.metadata and value == item.default:
            continue
        plain[item.name] = binding_settings(value) if dataclasses.is_dataclass(value) else value
    return plain


def overridden(recipe: Recipe, assignments: Iterable[str]) -> Recipe:
    """The recipe with `path.to.setting=value` applied, values in JSON.

    Raises:
        ValueError: an assignment names no setting, or its value is of another type or out of range.
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


def batch_sizes(recipe: Recipe) -> dict[str, int]:
    """Every `batch_size` of the recipe, by the name of its setting."""

    def found(node: Mapping[str, Any], path: str) -> Iterator[tuple[str, int]]:
        for name, value in node.items():
            if isinstance(value, Mapping):
                yield from found(value, f"{path}{name}.")
            elif name == "batch_size":
                yield path + name, value

    return dict(found(settings_of(recipe), ""))


def optimizer_steps(recipe: Recipe, images: int) -> dict[str, int]:
    """Optimizer steps of each stage, on so many training images."""
    schedules = {
        "classifier": recipe.classifier.schedule,
        "normal_teacher": recipe.normal_teacher.schedule,
        "adversarial_teacher": recipe.adversarial_teacher.schedule,
        "distillation": recipe.distillation.schedule,
        "ablation": recipe.ablation,
        "surrogate": recipe.surrogate,
    }
    if recipe.surrogate_classifier:
        schedules["surrogate_classifier"] = recipe.surrogate_classifier
    if recipe.encoder:
        schedules["encoder"] = recipe.encoder.schedule
        if recipe.surrogate_encoder:
            schedules["surrogate_encoder"] = recipe.surrogate_encoder
    return {
        stage: schedule.epochs * max(1, images // schedule.batch_size)
        for stage, schedule in schedules.items()
    }


def _built(wanted: Any, value: Any, path: str) -> Any:
    """The plain value as the wanted type."""
    origin, arguments = get_origin(wanted), get_args(wanted)
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        if not isinstance(value, Mapping):
            raise ValueError(f"{path} must be an object, got {value!r}")
        hints = get_type_hints(wanted, include_extras=True)
        fields = dataclasses.fields(wanted)
        needed = {item.name for item in fields if "later" not in item.metadata}
        wrong = (needed - set(value)) | (set(value) - {item.name for item in fields})
        if wrong:
            raise ValueError(f"{path}: settings {sorted(wrong)} are unknown or missing")
        built = {name: _built(hints[name], value[name], f"{path}.{name}") for name in value}
        try:
            return wanted(**built)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    if origin is Annotated:
        kind, _, *ranges = arguments
        built, allowed = _built(kind, value, path), ranges[0] if ranges else NOT_NEGATIVE
        for number in built if isinstance(built, tuple) else (built,):
            if isinstance(number, int | float) and number not in allowed:
                raise ValueError(f"{path} must be {allowed}, got {number}")
        return built
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
