"""Whether a classifier that was brought is what its options say: mistakes are found and named."""

import re
from collections import Counter
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
    if answers.shape[1] == 1 and classes == 2:
        raise ClassifierError(
            f"{name}: it gives one number for two classes; wanted is one for each: export it with "
            "two outputs, such as 0 and the logit"
        )
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
    answered = answers_of(options).argmax(1)
    right = answered == labels
    accuracy = float(right.float().mean())
    shown = f"{name}: it is right on {accuracy:.0%} of {len(labels)} images"
    by_number = sorted(range(len(class_names)), key=lambda place: _by_number(class_names[place]))
    others = [
        (option, answers_of(other).argmax(1)) for option, other in _readings(options, channels)
    ]
    others.append((_labels_option(by_number, class_names), torch.tensor(by_number)[answered]))
    best, remedy = answered, ""
    for option, found in others:
        if (found == labels).sum() > (best == labels).sum():
            best, remedy = found, option
    # What is fitted to these very images must be more than a little better than what is not.
    order, guessed = _confirmed_order(answered, labels, len(class_names))
    if order and _clearly_better(torch.tensor(order)[answered] == labels, best == labels):
        best = torch.tensor(order)[answered]
        remedy = _labels_option(order, class_names, guessed)
    if _clearly_better(best == labels, right) and _beyond_chance(best, labels):
        share = float((best == labels).float().mean())
        raise ClassifierError(f"{shown}, and on {share:.0%} with {remedy}")
    if not _beyond_chance(answered, labels):
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


def _clearly_better(found: Tensor, before: Tensor) -> bool:
    """Whether the first of two readings of the same images (N,) is right far more often."""
    share, given = float(found.float().mean()), float(before.float().mean())
    low, _ = wilson_interval(int(found.sum()), len(found))
    return share - given > CLEARLY_BETTER and low > given


def _beyond_chance(answered: Tensor, labels: Tensor) -> bool:
    """Whether answers (N,) are right more often than one and the same to every image.

    Classes count alike, however many images they have: such an answer is then right on one of them.
    """
    shares = [
        float((answered[labels == label] == label).float().mean()) for label in set(labels.tolist())
    ]
    low, _ = wilson_interval(round(sum(shares) / len(shares) * len(labels)), len(labels))
    return low > 1 / len(shares)


def _labels_option(
    order: list[int], class_names: Sequence[str], guessed: Sequence[int] = ()
) -> str:
    """The option that names the labels in an order, and which of them nothing speaks for."""
    option = "--labels " + ",".join(class_names[place] for place in order)
    if guessed:
        names = ", ".join(class_names[order[answer]] for answer in guessed)
        option += f"; where {names} stand is a guess, since no image tells"
    return option


def _confirmed_order(answers: Tensor, labels: Tensor, classes: int) -> tuple[list[int], list[int]]:
    """The order that the images tell, and the answers whose place in it is a guess.

    Both are empty where half of the images does not tell one that is clearly better on the other
    half: with many classes some order fits any few images.
    """
    half = len(labels) // 2
    learnt, _ = _likely_order(answers[:half], labels[:half], classes)
    confirmed = torch.tensor(learnt)[answers[half:]] == labels[half:]
    if not _clearly_better(confirmed, answers[half:] == labels[half:]):
        return [], []
    return _likely_order(answers, labels, classes)


def _by_number(name: str) -> list[tuple[bool, int, str]]:
    """A key that sorts 10 behind 9."""
    parts = re.findall(r"\d+|\D+", name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _likely_order(answers: Tensor, labels: Tensor, classes: int) -> tuple[list[int], list[int]]:
    """For each answer a class, so that those that come together most often belong together.

    Answers that are left get the classes that are left; they are told beside the order.
    """
    pairs = Counter(zip(answers.tolist(), labels.tolist(), strict=True))
    order: dict[int, int] = {}
    left = dict.fromkeys(range(classes))
    for answer, label in sorted(pairs, key=lambda pair: (-pairs[pair], pair)):
        if answer not in order and label in left:
            order[answer] = label
            del left[label]
    guessed = [answer for answer in range(classes) if answer not in order]
    order |= zip(guessed, left, strict=True)
    return [order[answer] for answer in range(classes)], guessed
