"""A classifier that a user brings: read, checked against real images, and made differentiable."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from app.bundle import ClassifierSpec, InputSpec
from training.classifier_checks import check_accuracy, check_answers
from training.classifier_file import ClassifierError, ClassifierFile, read_onnx
from training.classifier_options import ClassifierOptions
from training.data import Dataset, Split, to_unit
from training.export import PARITY_BATCHES
from training.preprocessing import preprocess_graph
from training.rebuilding import CHECKED_IMAGES, rebuilt_classifier
from training.recipes import Recipe
from training.served_classifier import ServedClassifier
from training.torch_classifier import exported_classifier

# On how many images a classifier is tried: enough to tell the order of many labels.
_IMAGES_A_CLASS = 12
_MOST_TRIED = 1024
_LITTLE = 0.5
_TRIED_ALONE = 32
# Quantized graphs take their scale from the batch: last digits differ, and now and then a label.
_SAME_ALONE = 0.9


@dataclass(frozen=True)
class BroughtClassifier:
    """A classifier that is served as it was given.

    Attributes:
        name: of the file, or of the factory.
        content: `classifier.onnx`, the user's own file where it is ONNX.
        preprocess: `preprocess.onnx`; None if it takes images as they are.
        spec: what it takes and gives.
        served: as the service runs it.
        network: the same with gradients; None if it has none.
        obstacles: why it has none: operators without gradients.
        accuracy: on some images of the data set.
        origin: for the manifest: name, digests, options.
    """

    name: str
    content: bytes
    preprocess: bytes | None
    spec: ClassifierSpec
    served: ServedClassifier
    network: nn.Module | None
    obstacles: tuple[str, ...]
    accuracy: float
    origin: Mapping[str, Any]

    @property
    def identity(self) -> tuple[str, ...]:
        """Digests of all that its answers depend on."""
        parts = (self.content, self.preprocess or b"", self.spec.model_dump_json().encode())
        return tuple(hashlib.sha256(part).hexdigest() for part in parts)


def bring(
    options: ClassifierOptions, file: ClassifierFile | None, dataset: Dataset
) -> BroughtClassifier:
    """The classifier, once it has shown that it is what the options say.

    Args:
        options: that describe it.
        file: of `classifier_file`; it is served as it is.
        dataset: that it should know; it is tried on some of the training images.

    Raises:
        ClassifierError: it does not fit the data, its options, or onnxruntime; the message names
            what is wrong and the option that would put it right.
    """
    images = dataset.spec
    if file is None:
        shown = to_unit(dataset.train.images[: max(PARITY_BATCHES)])
        file = read_onnx(*exported_classifier(options, images, shown), options)
    wanted = min(max(CHECKED_IMAGES, _IMAGES_A_CLASS * len(dataset.train.class_names)), _MOST_TRIED)
    sample = dataset.train.sample(wanted, seed=0)
    pixels = to_unit(sample.images)
    served = _served(file, options, images)
    accuracy = _checked(file, served, options, sample, images, pixels)
    network, obstacles = rebuilt_classifier(
        file.name, served, images, pixels[:CHECKED_IMAGES], sample.labels[:CHECKED_IMAGES]
    )
    return BroughtClassifier(
        name=file.name,
        content=file.content,
        preprocess=served.preprocess,
        spec=served.spec,
        served=served,
        network=network,
        obstacles=obstacles,
        accuracy=accuracy,
        origin={
            "name": file.name,
            "sha256": served.sha256,
            "options": {**options.settings(), "layout": file.layout, "output": file.output},
            "without_gradients": list(obstacles),
        },
    )


def _served(
    file: ClassifierFile, options: ClassifierOptions, images: InputSpec
) -> ServedClassifier:
    """The classifier as the service would run it under the options."""
    described = replace(file, layout=options.layout or file.layout)
    spec = ClassifierSpec(input=file.input, output=file.output, gives=options.gives)
    return ServedClassifier(file.content, preprocess_graph(images, described, options), spec)


def _checked(
    file: ClassifierFile,
    served: ServedClassifier,
    options: ClassifierOptions,
    sample: Split,
    images: InputSpec,
    pixels: Tensor,
) -> float:
    """How often the classifier is right on real images, once its answers are what they should be.

    Raises:
        ClassifierError: they are not.
    """

    def answers_of(chosen: ClassifierOptions) -> Tensor:
        try:
            found = _served(file, chosen, images).answers(pixels)
        except ClassifierError:
            raise
        except ValueError as error:
            raise ClassifierError(f"{file.name}: {error}") from error
        if len(found) != len(pixels):
            raise ClassifierError(
                f"{file.name}: it gives {len(found)} rows for {len(pixels)} images: was it made "
                "with squeeze() without axes?"
            )
        return torch.from_numpy(found)

    names = sample.class_names
    check_answers(file.name, answers_of(options), len(names), options)
    _check_alone(file.name, served, pixels[:_TRIED_ALONE])
    return check_accuracy(file.name, answers_of, sample.labels, names, options, images.channels)


def _check_alone(name: str, served: ServedClassifier, pixels: Tensor) -> None:
    """Refuse a classifier whose answer depends on what else is in the batch.

    Raises:
        ClassifierError: it does.
    """
    together = served.outputs(pixels)
    try:
        alone = torch.cat([served.outputs(image) for image in torch.split(pixels, 1)])
    except (RuntimeError, ValueError) as error:
        raise ClassifierError(f"{name}: it fails on one image alone: {error}") from error
    if alone.shape != together.shape:
        raise ClassifierError(
            f"{name}: for one image alone it gives another shape than in a batch: was it made with "
            "squeeze() without axes?"
        )
    same = alone.argmax(1) == together.argmax(1)
    if float(same.float().mean()) < _SAME_ALONE:
        raise ClassifierError(
            f"{name}: its answer to an image depends on the others in the batch, and the service "
            "asks in any batches: was it traced or exported in training mode? Call .eval() first"
        )


def classifier_file(options: ClassifierOptions) -> ClassifierFile | None:
    """The classifier's file; None if it has to be exported from PyTorch first.

    Raises:
        ClassifierError: it cannot be read or used.
    """
    path = Path(options.source)
    if options.weights is not None and options.is_file:
        raise ClassifierError(f"{path.name}: a file has its weights inside; no --weights")
    if path.suffix.lower() != ".onnx":
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ClassifierError(f"{path}: cannot be read: {error.strerror}") from error
    return read_onnx(path.name, content, options)


def check_recipe(recipe: Recipe, brought: BroughtClassifier) -> None:
    """Refuse a recipe that needs gradients of a classifier that has none.

    Raises:
        ClassifierError: it does.
    """
    stages = (recipe.normal_teacher, recipe.adversarial_teacher, recipe.distillation)
    through = any(stage.attack and stage.attack.through == "pipeline" for stage in stages)
    if through and brought.network is None:
        raise ClassifierError(
            f"{brought.name}: it cannot be differentiated (operators "
            f"{', '.join(brought.obstacles)}), and {recipe.name} attacks through it; the recipe "
            "paper trains with the gradients of a surrogate"
        )


def told(brought: BroughtClassifier) -> str:
    """One line on what was found."""
    digest = brought.origin["sha256"]
    line = f"classifier: {brought.name}, SHA-256 {digest[:12]}, right on {brought.accuracy:.1%}"
    if brought.accuracy < _LITTLE:
        line += " of some training images, which is little: are its options and --labels right?"
    if brought.network is None:
        line += f"; without gradients (operators {', '.join(brought.obstacles)}): a surrogate's"
    return line
