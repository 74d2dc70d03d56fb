from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from training.losses import (
    agreement_loss,
    distillation_loss,
    ensemble_of,
    pixel_loss,
    softened,
    teacher_loss,
)
from training.recipe_book import HARDENED
from training.recipes import StudentStage, TeacherStage

TEACHER = TeacherStage(HARDENED.normal_teacher.schedule, attack=None, pixels=0.0)
STUDENT = StudentStage(HARDENED.distillation.schedule, HARDENED.distillation.attack, pixels=0.0)
LABELS = torch.tensor([0, 2, 1])


def images(seed: int) -> Tensor:
    return torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


def logits(seed: int) -> Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(seed))


def test_softened_labels_are_labels_and_answers_by_their_share() -> None:
    answers = logits(1).softmax(1)
    sure = torch.eye(4)[LABELS]
    for share in (0.0, 0.25, 1.0):
        expected = (1 - share) * sure + share * answers
        torch.testing.assert_close(softened(LABELS, logits(1), share), expected)


def of_teacher(stage: TeacherStage, scale: float = 1.0) -> Tensor:
    pairs = (images(1), images(2)), (logits(1), logits(2))
    return teacher_loss(stage, *pairs, images(3), logits(3), LABELS, scale)


def of_student(stage: StudentStage, scale: float = 1.0) -> Tensor:
    purified, targets = (images(1), images(2)), (images(3), images(4))
    answers, wanted = (logits(1), logits(2)), (logits(3), logits(4))
    return distillation_loss(stage, purified, targets, answers, wanted, LABELS, scale)


def test_pixel_loss_is_zero_only_for_the_same_image() -> None:
    assert float(pixel_loss(images(1), images(1))) == 0
    assert float(pixel_loss(images(1), images(2))) > 0


@pytest.mark.parametrize("channels", [1, 3])
def test_pixel_loss_is_a_sum_over_pixels_by_the_side(channels: int) -> None:
    black = torch.zeros(5, channels, 4, 4)
    spotted = black.clone()
    spotted[:, 0, 1, 2] = 0.5
    assert float(pixel_loss(spotted, black)) == pytest.approx(0.5**2 / 4)


def test_agreement_is_zero_whatever_is_added_to_all_logits() -> None:
    assert float(agreement_loss(logits(1), logits(1) + 3)) == pytest.approx(0, abs=1e-6)


def test_agreement_of_few_digits_is_computed_with_many() -> None:
    chance = torch.Generator().manual_seed(0)
    few, target = (torch.randn(64, 10, generator=chance).bfloat16() for _ in range(2))
    found = agreement_loss(few, target)
    assert found.dtype == torch.float32
    assert found == agreement_loss(few.float(), target.float())


def test_agreement_is_the_divergence_from_the_target() -> None:
    ours, target = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.5, 0.5]])
    expected = 0.5 * torch.log(torch.tensor(0.5 / 0.9)) + 0.5 * torch.log(torch.tensor(0.5 / 0.1))
    torch.testing.assert_close(agreement_loss(ours.log(), target.log()), expected)
    twice = agreement_loss(ours.log().repeat(2, 1), target.log().repeat(2, 1))
    torch.testing.assert_close(twice, expected)  # a mean over images


@pytest.mark.parametrize(
    ("share", "expected"),
    [(1.0, images(1)), (0.0, images(2)), (0.25, images(1) / 4 + images(2) * 0.75)],
)
def test_the_ensemble_is_shared_out(share: float, expected: Tensor) -> None:
    torch.testing.assert_close(ensemble_of(images(1), images(2), share), expected)


def test_each_term_of_the_teacher_is_weighted() -> None:
    pixels = (pixel_loss(images(1), images(3)) + pixel_loss(images(2), images(3))) / 2
    terms = {
        "pixels": pixels,
        "clean_cross_entropy": functional.cross_entropy(logits(1), LABELS),
        "cross_entropy": functional.cross_entropy(logits(2), LABELS),
        "agreement": agreement_loss(logits(2), logits(3)),
    }
    assert float(of_teacher(TEACHER)) == 0
    for name, value in terms.items():
        found = of_teacher(replace(TEACHER, **{name: 2.0}))  # type: ignore[arg-type]
        torch.testing.assert_close(found, 2 * value, msg=name)
    everything = replace(TEACHER, **dict.fromkeys(terms, 1.0))  # type: ignore[arg-type]
    torch.testing.assert_close(of_teacher(everything), torch.stack(list(terms.values())).sum())
    torch.testing.assert_close(of_teacher(everything, scale=0.0), pixels)


def test_each_term_of_the_student_is_weighted() -> None:
    pixels = (pixel_loss(images(1), images(3)) + pixel_loss(images(2), images(4))) / 2
    terms = {
        "pixels": pixels,
        "logits": (agreement_loss(logits(1), logits(3)) + agreement_loss(logits(2), logits(4))) / 2,
        "clean_cross_entropy": functional.cross_entropy(logits(1), LABELS),
        "cross_entropy": functional.cross_entropy(logits(2), LABELS),
    }
    assert float(of_student(STUDENT)) == 0
    for name, value in terms.items():
        found = of_student(replace(STUDENT, **{name: 2.0}))  # type: ignore[arg-type]
        torch.testing.assert_close(found, 2 * value, msg=name)
    everything = replace(STUDENT, **dict.fromkeys(terms, 1.0))  # type: ignore[arg-type]
    torch.testing.assert_close(of_student(everything), torch.stack(list(terms.values())).sum())
    torch.testing.assert_close(of_student(everything, scale=0.0), pixels)


def test_losses_vanish_where_everything_is_right() -> None:
    certain = functional.one_hot(LABELS, 4) * 100.0
    same, pair = images(1), (images(1), images(1))
    stage = replace(TEACHER, pixels=1.0, cross_entropy=1.0, clean_cross_entropy=1.0, agreement=1.0)
    found = teacher_loss(stage, pair, (certain, certain), same, certain, LABELS)
    assert float(found) == pytest.approx(0, abs=1e-6)
    student = replace(STUDENT, pixels=1.0, logits=1.0, cross_entropy=1.0, clean_cross_entropy=1.0)
    found = distillation_loss(student, pair, pair, (certain, certain), (certain, certain), LABELS)
    assert float(found) == pytest.approx(0, abs=1e-6)


def test_without_logits_the_pixels_are_left() -> None:
    pair, targets = (images(1), images(2)), (images(3), images(3))
    expected = (pixel_loss(images(1), images(3)) + pixel_loss(images(2), images(3))) / 2
    found = teacher_loss(replace(TEACHER, pixels=1.0), pair, None, images(3), None, LABELS)
    torch.testing.assert_close(found, expected)
    found = distillation_loss(replace(STUDENT, pixels=1.0), pair, targets, None, None, LABELS)
    torch.testing.assert_close(found, expected)


def test_gradients_flow_to_both_halves() -> None:
    purified = images(1).requires_grad_(), images(2).requires_grad_()
    answers = logits(1).requires_grad_(), logits(2).requires_grad_()
    stage = HARDENED.distillation
    distillation_loss(
        stage, purified, (images(3), images(4)), answers, (logits(3), logits(4)), LABELS
    ).backward()  # type: ignore[no-untyped-call]
    for tensor in (*purified, *answers):
        assert tensor.grad is not None and float(tensor.grad.abs().sum()) > 0
        tensor.grad = None
    teacher_loss(
        HARDENED.adversarial_teacher, purified, answers, images(3), logits(3), LABELS
    ).backward()  # type: ignore[no-untyped-call]
    for tensor in (*purified, *answers):
        assert tensor.grad is not None and float(tensor.grad.abs().sum()) > 0
