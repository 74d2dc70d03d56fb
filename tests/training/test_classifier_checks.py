"""Every way to describe a classifier wrongly is found, and the option that is meant is named."""

from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from training.classifier_checks import check_accuracy, check_answers
from training.classifier_file import ClassifierError
from training.classifier_options import ClassifierOptions

NAMES = ("cat", "dog", "fox", "owl")
LABELS = torch.arange(400) % 4
RIGHT = functional.one_hot(LABELS, 4).float() * 5
NOISE = torch.rand(400, 4, generator=torch.Generator().manual_seed(0))


def options(**given: Any) -> ClassifierOptions:
    return ClassifierOptions(source="mine.onnx", **given)


@pytest.mark.parametrize(
    ("answers", "given", "reason"),
    [
        (RIGHT[:, :3], {}, "gives 3 numbers an image, the data has 4 classes; --labels"),
        (RIGHT * float("nan"), {}, "not finite"),
        (RIGHT.softmax(1), {}, "say --gives probabilities"),
        (RIGHT, {"gives": "probabilities"}, "gives no probabilities .* leave --gives"),
        (RIGHT.sigmoid(), {"gives": "probabilities"}, "sums from"),
    ],
    ids=["number", "nan", "probabilities", "logits", "sigmoids"],
)
def test_answers_of_another_kind_are_named(
    answers: Tensor, given: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ClassifierError, match=reason) as refused:
        check_answers("mine.onnx", answers, 4, options(**given))
    assert str(refused.value).startswith("mine.onnx: ")


def test_answers_of_the_declared_kind_pass() -> None:
    check_answers("mine.onnx", RIGHT, 4, options())
    check_answers("mine.onnx", RIGHT.softmax(1), 4, options(gives="probabilities"))


def right_if(condition: Callable[[ClassifierOptions], bool]) -> Callable[..., Tensor]:
    """A classifier that is right under some options, and guesses under the others."""
    return lambda chosen: RIGHT if condition(chosen) else NOISE


IMAGENET = "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"


@pytest.mark.parametrize(
    ("condition", "given", "remedy"),
    [
        (lambda o: o.scale == 255, {}, "--scale 255"),
        (lambda o: o.scale == 1, {"scale": 255.0}, "--scale 1"),
        (lambda o: o.mean == (0.5,), {}, "--mean 0.5 --std 0.5"),
        (lambda o: o.channel_order == "bgr", {}, "--channel-order bgr"),
        (lambda o: o.channel_order == "rgb", {"channel_order": "bgr"}, "--channel-order rgb"),
        (lambda o: len(o.std) == 3, {}, IMAGENET),
        (lambda o: o.layout == "flat-chw", {"layout": "flat-hwc"}, "--layout flat-chw"),
    ],
)
def test_the_option_that_is_meant_is_named(
    condition: Callable[[ClassifierOptions], bool], given: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(ClassifierError, match=f"and on 100% with {remedy}$"):
        check_accuracy("mine.onnx", right_if(condition), LABELS, NAMES, options(**given), 3)


def test_another_order_of_the_labels_is_named() -> None:
    answers = RIGHT[:, [2, 0, 3, 1]]
    with pytest.raises(ClassifierError, match=r"100% with --labels fox,cat,owl,dog$"):
        check_accuracy("mine.onnx", lambda _: answers, LABELS, NAMES, options(), 1)


@pytest.mark.parametrize("shift", [1, 3])
def test_an_order_that_is_never_right_is_named_rather_than_an_option_at_chance(shift: int) -> None:
    names = [f"c{number}" for number in range(10)]
    labels = torch.arange(200) % 10
    turned = functional.one_hot((labels + shift) % 10, 10).float()
    constant = functional.one_hot(torch.zeros(200, dtype=torch.long), 10).float()

    def answers_of(chosen: ClassifierOptions) -> Tensor:
        return turned if chosen.scale == 1 and chosen.std == (1.0,) else constant

    meant = ",".join(names[-shift:] + names[:-shift])
    with pytest.raises(ClassifierError, match=rf"right on 0% .*100% with --labels {meant}$"):
        check_accuracy("mine.onnx", answers_of, labels, names, options(), 3)
    with pytest.raises(ClassifierError, match=r"right on 10% .* no more than chance"):
        check_accuracy("mine.onnx", lambda _: constant, labels, names, options(), 3)
    uneven = torch.where(torch.arange(200) < 58, 0, labels)
    with pytest.raises(ClassifierError, match=r"right on 3\d% .*, no more than chance"):
        check_accuracy("mine.onnx", lambda _: constant, uneven, names, options(), 3)
    wrong = functional.one_hot((labels + 1 + (torch.arange(200) // 10) % 9) % 10, 10).float()
    with pytest.raises(ClassifierError, match=r"right on 0% .* no more than chance"):
        check_accuracy(
            "mine.onnx",
            lambda chosen: constant if chosen.scale == 255 else wrong,
            labels,
            names,
            options(),
            3,
        )


@pytest.mark.parametrize("seed", range(4))
def test_folders_in_the_order_of_their_numbers_are_named(seed: int) -> None:
    names = sorted(str(number) for number in range(43))
    generator = torch.Generator().manual_seed(seed)
    # As traffic signs: a few classes have most of the images, and some have none here.
    often = torch.rand(43, generator=generator) ** 3
    labels = often.multinomial(400, replacement=True, generator=generator)
    numbers = torch.tensor([int(name) for name in names])
    answers = functional.one_hot(numbers[labels], 43).float()
    counted = ",".join(str(number) for number in range(43))
    with pytest.raises(ClassifierError, match=f"and on 100% with --labels {counted}$"):
        check_accuracy("mine.onnx", lambda _: answers, labels, names, options(), 3)


def test_an_order_of_many_labels_is_told_from_the_more_frequent_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(43, generator=generator)
    labels = (torch.rand(500, generator=generator) ** 2 * 41).long()  # two classes have no image
    answers = functional.one_hot(order[labels], 43).float()
    names = [f"sign {number:02}" for number in range(43)]
    with pytest.raises(ClassifierError, match=r"and on (9\d|100)% with --labels sign") as refused:
        check_accuracy("mine.onnx", lambda _: answers, labels, names, options(), 3)
    listed, _, guess = str(refused.value).partition("--labels ")[2].partition("; where ")
    named = listed.split(",")
    assert sorted(named) == names
    seen = set(labels.tolist())
    assert all(named[int(order[place])] == names[place] for place in seen)
    unseen = {names[place] for place in range(43) if place not in seen}
    assert unseen and guess.endswith(" stand is a guess, since no image tells")
    assert set(guess.partition(" stand")[0].split(", ")) == unseen


@pytest.mark.parametrize("seed", range(3))
def test_a_classifier_that_errs_is_still_told_the_order_of_the_numbers(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    names = sorted(str(number) for number in range(43))
    numbers = torch.tensor([int(name) for name in names])
    labels = torch.randint(43, (500,), generator=generator)
    errs = torch.rand(500, generator=generator) < 0.1
    given = torch.where(errs, torch.randint(43, (500,), generator=generator), numbers[labels])
    answers = functional.one_hot(given, 43).float()
    with pytest.raises(ClassifierError, match=r"--labels 0,1,2,3,4,.*,42$"):
        check_accuracy("mine.onnx", lambda _: answers, labels, names, options(), 3)


@pytest.mark.parametrize("seed", range(8))
def test_an_order_fitted_to_the_images_does_not_outdo_that_of_the_numbers(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    names = sorted(str(number) for number in range(43))
    numbers = torch.tensor([int(name) for name in names])
    often = torch.rand(43, generator=generator) ** 2 + 0.05
    labels = often.multinomial(516, replacement=True, generator=generator)
    errs = torch.rand(516, generator=generator) < 0.6
    given = torch.where(errs, torch.randint(43, (516,), generator=generator), numbers[labels])
    answers = functional.one_hot(given, 43).float()
    with pytest.raises(ClassifierError, match=r"--labels 0,1,2,3,4,.*,42$"):
        check_accuracy("mine.onnx", lambda _: answers, labels, names, options(), 3)


def test_a_mediocre_classifier_is_not_refused_for_the_halves_it_is_tried_on() -> None:
    names = [f"c{number:02}" for number in range(20)]
    for seed in range(300):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(20, (256,), generator=generator)
        errs = torch.rand(256, generator=generator) < 0.3
        given = torch.where(errs, torch.randint(20, (256,), generator=generator), labels)
        always = MagicMock(return_value=functional.one_hot(given, 20).float())
        found = check_accuracy("mine.onnx", always, labels, names, options(), 3)
        assert 0.5 < found < 0.9


def test_many_classes_do_not_make_an_order_of_guesses() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 100
    names = [f"{number:02}" for number in range(100)]
    guesses = torch.rand(200, 100, generator=generator)
    guesses[:20, :] = functional.one_hot(labels[:20], 100)  # a tenth it knows
    found = check_accuracy("mine.onnx", lambda _: guesses, labels, names, options(), 3)
    assert 0.1 <= found < 0.15


def test_chance_is_refused() -> None:
    with pytest.raises(ClassifierError, match="no more than chance; look at --scale"):
        check_accuracy("mine.onnx", lambda _: NOISE, LABELS, NAMES, options(), 3)


def test_a_classifier_that_is_only_mediocre_passes() -> None:
    mediocre = torch.where((torch.arange(400) % 8 < 4)[:, None], RIGHT, NOISE * 0)
    # Half of the answers are right, the others all for the first class.
    found = check_accuracy("mine.onnx", lambda _: mediocre, LABELS, NAMES, options(), 3)
    assert found == pytest.approx(0.5 + 0.125)
