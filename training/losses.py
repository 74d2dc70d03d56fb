"""The losses of the stages: pure functions of what the networks returned."""

import torch
from torch import Tensor
from torch.nn import functional

from training.recipes import StudentStage, TeacherStage


def pixel_loss(purified: Tensor, target: Tensor) -> Tensor:
    """Squared distance per image, summed over pixels and divided by the image's side (scalar).

    The side is the square root of the pixel count: the mean over all pixels is so small on images
    that are mostly background that the logit terms would drown it.
    """
    side = float(purified[0, 0].numel()) ** 0.5
    squares = functional.mse_loss(purified, target, reduction="sum")
    loss: Tensor = squares / (len(purified) * side)
    return loss


def agreement_loss(logits: Tensor, target_logits: Tensor) -> Tensor:
    """KL divergence from the target's class probabilities to ours, in nats (scalar)."""
    # In float32, for under autocast logits may have too few digits for it.
    chances, wanted = (
        values.log_softmax(1, dtype=torch.float32) for values in (logits, target_logits)
    )
    return functional.kl_div(chances, wanted, reduction="batchmean", log_target=True)


def softened(labels: Tensor, logits: Tensor, share: float) -> Tensor:
    """Chances (N, K): labels (N,), of which a share is what the logits (N, K) give instead."""
    answers = logits.softmax(1, dtype=torch.float32)
    sure = functional.one_hot(labels, logits.shape[1]).to(answers.dtype)
    return torch.lerp(sure, answers, share)


def teacher_loss(
    stage: TeacherStage,
    purified: tuple[Tensor, Tensor],
    logits: tuple[Tensor, Tensor] | None,
    images: Tensor,
    image_logits: Tensor | None,
    labels: Tensor,
    scale: float = 1.0,
) -> Tensor:
    """What a teacher minimises (scalar).

    Args:
        stage: weights of the terms.
        purified: what the teacher made of the clean and of the attacked images.
        logits: the frozen classifier on both; None where no term needs it.
        images: the clean images.
        image_logits: the frozen classifier on the clean images as they are.
        labels: (N,).
        scale: of all terms that the classifier has a part in.
    """
    total = stage.pixels * (pixel_loss(purified[0], images) + pixel_loss(purified[1], images)) / 2
    if logits is None or image_logits is None:
        return total
    clean, attacked = logits
    total = total + scale * stage.clean_cross_entropy * functional.cross_entropy(clean, labels)
    total = total + scale * stage.cross_entropy * functional.cross_entropy(attacked, labels)
    return total + scale * stage.agreement * agreement_loss(attacked, image_logits)


def ensemble_of(normal: Tensor, adversarial: Tensor, normal_share: float) -> Tensor:
    """Weighted mean of the two teachers' images (or logits)."""
    return torch.lerp(adversarial, normal, normal_share)


def distillation_loss(
    stage: StudentStage,
    purified: tuple[Tensor, Tensor],
    targets: tuple[Tensor, Tensor],
    logits: tuple[Tensor, Tensor] | None,
    target_logits: tuple[Tensor, Tensor] | None,
    labels: Tensor,
    scale: float = 1.0,
) -> Tensor:
    """What the student minimises (scalar).

    Args:
        stage: weights of the terms.
        purified: what the student made of the clean and of the attacked images.
        targets: what the ensemble of teachers made of them.
        logits: the frozen classifier on `purified`; None where no term needs it.
        target_logits: the frozen classifier on `targets`.
        labels: (N,).
        scale: of all terms that the classifier has a part in.
    """
    pixels = pixel_loss(purified[0], targets[0]) + pixel_loss(purified[1], targets[1])
    total = stage.pixels * pixels / 2
    if logits is None or target_logits is None:
        return total
    agreement = agreement_loss(logits[0], target_logits[0])
    agreement = agreement + agreement_loss(logits[1], target_logits[1])
    total = total + scale * stage.logits * agreement / 2
    total = total + scale * stage.clean_cross_entropy * functional.cross_entropy(logits[0], labels)
    return total + scale * stage.cross_entropy * functional.cross_entropy(logits[1], labels)
