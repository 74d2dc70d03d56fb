"""Tests of the evaluation itself.

A `BrokenEvaluation` says that the figures would mean nothing, and stops, unless there is an excuse
(`training.self_tests`). A failed `Check` says that the attacks did not agree, which points to
masked gradients: it stands in the card, and the headline is the worst of all attacks.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from training.adversary import Attacked, is_correct, logits_of
from training.attacks import input_gradient, margin_loss
from training.card import Check, Row, Sweep, wilson_interval

# Two attacks on the same images may differ by this share without meaning anything.
NOISE = 0.01
# So many that all attacks by gradients left Square may break. Source: AutoAttack's own check,
# `check_square_sr`, which finds nothing to compare where each attack is run by itself.
SQUARE_ALONE = 0.002
# Of naturally trained classifiers. Of things as little alike as traffic signs, some stay right at
# epsilon by themselves; where the attack fails, nearly all do. At a few times epsilon hardly any
# may be left.
UNDEFENDED_BELOW = 0.20
FAR = 3  # times epsilon
BROKEN_BELOW = 0.05
BAD_PURIFIER_ABOVE_BARE = 0.10
PROBE_IMAGES = 64
ABOVE_CHANCE = 1.5  # times the accuracy of a guess


class BrokenEvaluation(ValueError):
    """An evaluation whose figures would mean nothing; the message says why."""


def check_model(
    model: nn.Module, images: Tensor, labels: Tensor, name: str, *, differentiable: bool = True
) -> None:
    """Raise unless the model is what attacks expect.

    Args:
        model: images in [0, 1] to logits.
        images: clean images (N, C, H, W) in [0, 1].
        labels: (N,).
        name: of the model, for the message.
        differentiable: whether it must give gradients.

    Raises:
        BrokenEvaluation: it is in train mode, random, returns probabilities, or gives no gradients.
    """
    images, labels = images[:PROBE_IMAGES], labels[:PROBE_IMAGES]
    check_eval_mode(model, name)
    logits = logits_of(model, images)
    if not torch.equal(logits, logits_of(model, images)):
        raise BrokenEvaluation(f"{name} is not deterministic: two passes gave different logits")
    if not bool(torch.isfinite(logits).all()):
        raise BrokenEvaluation(f"{name} returns logits that are not finite")
    sums_to_one = bool(((logits.sum(1) - 1).abs() < 1e-4).all())
    if sums_to_one and float(logits.min()) >= 0:
        raise BrokenEvaluation(f"{name} returns probabilities where logits belong")
    zero = zero_gradient_share(model, images, labels) if differentiable else 0.0
    if zero > 0.5:
        raise BrokenEvaluation(f"{name} gives no gradient for {zero:.0%} of the images")


def check_pixel_range(model: nn.Module, images: Tensor, labels: Tensor, name: str) -> None:
    """Raise if a classifier that was brought wants 0..255; arguments as of `check_model`.

    A classifier of a recipe takes [0, 1] by its making; one that has learnt little may still be
    right more often on pixels of 0..255, where it gives nearly every image one label.
    """
    images, labels = images[:PROBE_IMAGES], labels[:PROBE_IMAGES]
    unit = float(is_correct(model, images, labels).float().mean())
    bytes_ = float(is_correct(model, images * 255, labels).float().mean())
    if bytes_ - unit > 0.2 and bytes_ > ABOVE_CHANCE * chance_of(labels):
        raise BrokenEvaluation(
            f"{name} wants pixels of 0..255 (accuracy {bytes_:.0%}), not of 0..1 ({unit:.0%})"
        )


def chance_of(labels: Tensor) -> float:
    """The accuracy of a model that gives every image the most frequent label."""
    return float(labels.bincount().max()) / len(labels)


def check_eval_mode(network: nn.Module, name: str) -> None:
    """Raise if batch norm or dropout anywhere in the network still behaves as in training."""
    training = [part for part, module in network.named_modules() if module.training]
    if training:
        raise BrokenEvaluation(f"{name} is in train mode ({training[0] or 'all of it'})")


def zero_gradient_share(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images whose margin has no gradient at all."""
    try:
        gradient = input_gradient(model, images, labels, margin_loss)
    except RuntimeError:  # nothing on the way to the logits is differentiable
        return 1.0
    return float((gradient.flatten(1).abs().amax(1) == 0).float().mean())


def check_undefended(row: Row) -> None:
    """Raise unless AutoAttack breaks a naturally trained classifier without purifier."""
    if row.low > UNDEFENDED_BELOW:
        raise BrokenEvaluation(
            f"the undefended classifier keeps {row.accuracy:.1%} under AutoAttack at epsilon "
            f"{row.epsilon}: the attack does not work, or epsilon is too small to mean anything"
        )


def check_bad_purifier(row: Row, bare: Row) -> None:
    """Raise unless the attack breaks the purifier that is known to be bad, the normal teacher.

    Args:
        row: the normal teacher before the classifier, both attacked.
        bare: the classifier alone, attacked.
    """
    if row.low > bare.accuracy + BAD_PURIFIER_ABOVE_BARE:
        raise BrokenEvaluation(
            f"the normal teacher keeps {row.accuracy:.1%} end-to-end at epsilon {row.epsilon}, "
            f"the classifier alone {bare.accuracy:.1%}, though nothing ever taught the teacher to "
            "resist: the attack does not reach through it"
        )


def check_sweep(sweep: Sweep, chance: float) -> None:
    """Raise unless accuracy falls to chance where an attack may paint any image.

    Args:
        sweep: accuracies over epsilon.
        chance: accuracy of a constant answer, which no attack takes below.
    """
    last = sweep.points[-1]
    for name, accuracy in (("classifier alone", last.bare), ("pipeline", last.purified)):
        low, _ = wilson_interval(round(accuracy * sweep.n), sweep.n)
        if low > chance:
            raise BrokenEvaluation(
                f"accuracy of the {name} is still {accuracy:.1%} at epsilon {last.epsilon:g}, "
                "where an attack may paint any image: the attack does not work"
            )


def check_far(sweep: Sweep, epsilon: float, chance: float) -> None:
    """Raise unless a naturally trained classifier keeps hardly anything far beyond epsilon.

    Args:
        sweep: accuracies over epsilon.
        epsilon: of the headline.
        chance: accuracy of a constant answer, which no attack takes below.
    """
    far = next((p for p in sweep.points if p.epsilon >= FAR * epsilon), sweep.points[-1])
    low, _ = wilson_interval(round(far.bare * sweep.n), sweep.n)
    if low > max(BROKEN_BELOW, chance):
        raise BrokenEvaluation(
            f"the undefended classifier still keeps {far.bare:.1%} at epsilon {far.epsilon:g}, far "
            f"beyond {epsilon:g}: the attack does not work"
        )


def masking_checks(
    autoattack: Tensor,
    gradient: Tensor,
    pgd: Mapping[str, Tensor],
    square: Tensor,
    transfer: Tensor | None,
    zero_gradients: float,
) -> tuple[Check, ...]:
    """Whether attacks that see less, or try less, break what stronger ones could not.

    Args:
        autoattack: (N,) bool, images that stand after AutoAttack.
        gradient: after its gradient-based attacks alone.
        pgd: after PGD, by loss.
        square: after Square alone.
        transfer: after the transfer from a surrogate, if there is one.
        zero_gradients: share of the images without any gradient.
    """
    white_box = gradient.clone()
    for standing in pgd.values():
        white_box &= standing
    checks = [
        _not_better(
            f"pgd_{name.replace('-', '_')}",
            f"PGD ({name})",
            standing,
            autoattack,
            "AutoAttack leaves",
        )
        for name, standing in pgd.items()
    ]
    gradients = "all gradient-based attacks together leave"
    checks.append(_not_better("square", "Square", square, white_box, gradients, SQUARE_ALONE))
    if transfer is not None:
        checks.append(_not_better("transfer", "Transfer", transfer, white_box, gradients))
    finding = f"{zero_gradients:.1%} of the clean images have no gradient at all"
    checks.append(Check(key="zero_gradients", passed=zero_gradients <= NOISE, finding=finding))
    return tuple(checks)


def _not_better(
    key: str, name: str, weaker: Tensor, stronger: Tensor, than: str, alone: float | None = None
) -> Check:
    """A check that one attack's accuracy is not below another's by more than noise.

    With `alone`, that it breaks no larger share of the images that the other left; one may fall.
    """
    gap = float(stronger.float().mean() - weaker.float().mean())
    only = int((stronger & ~weaker).sum())
    passed = gap <= NOISE if alone is None else only <= max(1, alone * len(weaker))
    finding = (
        f"{name} leaves {float(weaker.float().mean()):.1%}, {than} "
        f"{float(stronger.float().mean()):.1%}; {only} of {len(weaker)} images fell to it alone"
    )
    return Check(key=key, passed=passed, finding=finding)


def ball_is_held(attacked: Attacked, clean: Tensor, epsilon: float, norm: str) -> None:
    """Raise if an attacked image is further than epsilon away or leaves [0, 1]."""
    order = float("inf") if norm == "linf" else 2.0
    moved = torch.linalg.vector_norm((attacked.images - clean).flatten(1), order, dim=1).max()
    if not float(moved) <= epsilon * (1 + 1e-4) + 1e-6:
        raise BrokenEvaluation(f"an attack moved an image by {float(moved)}, epsilon is {epsilon}")
    if not (float(attacked.images.min()) >= 0 and float(attacked.images.max()) <= 1):
        raise BrokenEvaluation("an attack left [0, 1]")
