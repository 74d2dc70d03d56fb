"""Whether a classifier that was brought is what its options say: mistakes are found and named."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from training.card import wilson_interval
from training.classifier_file import ClassifierError
from training.classifier_options import ClassifierOptions, Layout

# Another reading of the options must be right that much more often to be the likelier one.
CLEARLY_BETTER = 0.05
_SUM_TOLERANCE = 1e-3
_BYTES = 255.0
# What most published classifiers of colour images were trained with.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

AnswersOf = Callable[[ClassifierOptions], Tensor]


def check_answers(name: str, answers: Tensor, classes: int, options: ClassifierOptions) -> None:
    """Refuse answers of the wrong number or kind.

    Args:
        name: of the classifier.
        answers: what it gave for real images (N, K), as it gave them.
        classes: number of labels.
        options: that describe it.

    Raises:
        ClassifierError: with the option that would put it right.
    """
    if answers.shape[1] != classes:
        raise ClassifierError(
            f"{name}: it gives {answers.shape[1]} numbers an image, the data has {classes} "
            "classes; --labels names all of its labels in order, those without images as well"
        )
    if not bool(torch.isfinite(answers).all()):
        raise ClassifierError(f"{name}: it gives numbers that are not finite")
    sums = answers.sum(1)
    likely = float(answers.min()) >= 0 and bool(((sums - 1).abs() < _SUM_TOLERANCE).all())
    if options.gives == "logits" and likely:
        raise ClassifierError(
            f"{name}: it gives probabilities (from 0 up, with a sum of 1) where logits belong; "
            "say --gives probabilities"
        )
    if options.gives == "probabilities" and not likely:
        raise ClassifierError(
            f"{name}: it gives no probabilities (from {float(answers.min()):.3g} to "
            f"{float(answers.max()):.3g}, sums from {float(sums.min()):.3g} to "
            f"{float(sums.max()):.3g}); leave --gives probabilities out"
        )


def check_accuracy(
    name: str,
    answers_of: AnswersOf,
    labels: Tensor,
    class_names: Sequence[str],
    options: ClassifierOptions,
    channels: int,
) -> float:
    """How often it is right on images of the data set, as its options say.

    Args:
        name: of the classifier.
        answers_of: its answers (N, K) to the images under any options.
        labels: (N,), positions in `class_names`.
        class_names: in the order of its answers, as far as is known.
        options: that describe it.
        channels: of the images.

    Raises:
        ClassifierError: it is at chance, or right far more often under another option, which the
            message names.
    """
    answers = answers_of(options)
    right = answers.argmax(1) == labels
    accuracy = float(right.float().mean())
    shown = f"{name}: it is right on {accuracy:.0%} of {len(labels)} images"
    best, remedy = accuracy, ""
    for option, other in _readings(options, channels):
        found = float((answers_of(other).argmax(1) == labels).float().mean())
        if found > best:
            best, remedy = found, option
    found, order = _order(answers, labels)
    if found > best:
        best, remedy = found, "--labels " + ",".join(class_names[place] for place in order)
    surely, _ = wilson_interval(round(best * len(labels)), len(labels))
    if best - accuracy > CLEARLY_BETTER and surely > accuracy:
        raise ClassifierError(f"{shown}, and on {best:.0%} with {remedy}")
    low, _ = wilson_interval(int(right.sum()), len(labels))
    if low <= 1 / answers.shape[1]:
        raise ClassifierError(
            f"{shown}, no more than chance; look at --scale, --mean, --std, --channel-order, "
            "--layout and --labels, and whether these are images that it was made for"
        )
    return accuracy


def _readings(options: ClassifierOptions, channels: int) -> Iterator[tuple[str, ClassifierOptions]]:
    """Other options that are easily mistaken for the given ones."""
    scale = 1.0 if options.scale == _BYTES else _BYTES
    yield f"--scale {scale:g}", replace(options, scale=scale)
    plain = (options.mean, options.std) == ((0.0,), (1.0,)) and options.scale == 1
    if plain:
        yield "--mean 0.5 --std 0.5", replace(options, mean=(0.5,), std=(0.5,))
    if channels == 3 and options.layout in ("flat-chw", "flat-hwc"):
        turned: Layout = "flat-hwc" if options.layout == "flat-chw" else "flat-chw"
        yield f"--layout {turned}", replace(options, layout=turned)
    if channels == 3:
        order = options.channel_order
        other = replace(options, channel_order="bgr" if order == "rgb" else "rgb")
        yield f"--channel-order {other.channel_order}", other
        if plain:
            mean, std = _IMAGENET
            numbers = [",".join(map(str, values)) for values in _IMAGENET]
            yield f"--mean {numbers[0]} --std {numbers[1]}", replace(options, mean=mean, std=std)


def _order(answers: Tensor, labels: Tensor) -> tuple[float, list[int]]:
    """Accuracy if each answer stood for the class that gets it most often, and these classes.

    The accuracy is 0 where two answers would stand for one class.
    """
    classes = answers.shape[1]
    counts = torch.zeros(classes, classes)  # (class, answer)
    counts.index_put_((labels, answers.argmax(1)), torch.ones(len(labels)), accumulate=True)
    given_to = counts.argmax(0)
    if len(set(given_to.tolist())) < classes:
        return 0.0, []
    right = float(counts[given_to, torch.arange(classes)].sum() / len(labels))
    return right, given_to.tolist()
