from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from tests.training.cards import make_card
from tests.training.small_networks import Linear
from training.adversary import Attacked
from training.card import Row, Sweep, SweepPoint, accuracy_row
from training.checks import (
    BrokenEvaluation,
    ball_is_held,
    chance_of,
    check_bad_purifier,
    check_eval_mode,
    check_far,
    check_model,
    check_pixel_range,
    check_sweep,
    check_undefended,
    masking_checks,
)


class _Wrapped(nn.Module):
    """A good classifier, spoilt."""

    def __init__(self, spoil: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = Linear()
        self.spoil = spoil
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.spoil(self.inner, images)


def _centred(inner: nn.Module, images: Tensor) -> Tensor:
    """Logits that turn on the images' own contrast, so that their scale matters."""
    logits: Tensor = inner(images - 0.5)
    return logits


def _bytes_wanted(inner: nn.Module, images: Tensor) -> Tensor:
    """Right for pixels of 0..255; in [0, 1] every image looks black."""
    return _centred(inner, images / 255)


SPOILT: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "probabilities": lambda inner, images: inner(images).softmax(1),
    "not deterministic": lambda inner, images: inner(images) + torch.randn(5),
    "no gradient": lambda inner, images: inner(images.detach()),
    "not finite": lambda inner, images: inner(images) / 0.0,
}


def _images_and_labels() -> tuple[Tensor, Tensor]:
    images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    with torch.no_grad():
        return images, _centred(Linear(), images).argmax(1)


def test_a_sound_model_passes() -> None:
    images, labels = _images_and_labels()
    check_model(_Wrapped(_centred), images, labels, "it")


@pytest.mark.parametrize("fault", SPOILT)
def test_a_spoilt_model_stops_the_evaluation(fault: str) -> None:
    images, labels = _images_and_labels()
    with pytest.raises(BrokenEvaluation, match=fault):
        check_model(_Wrapped(SPOILT[fault]), images, labels, "it")


def test_a_brought_classifier_that_wants_bytes_stops_the_evaluation() -> None:
    images, labels = _images_and_labels()
    check_pixel_range(_Wrapped(_centred), images, labels, "it")
    check_model(_Wrapped(_bytes_wanted), images, labels, "it")  # a recipe's may be as bad as that
    with pytest.raises(BrokenEvaluation, match=r"it wants pixels of 0\.\.255"):
        check_pixel_range(_Wrapped(_bytes_wanted), images, labels, "it")


def test_chance_is_the_share_of_the_most_frequent_label() -> None:
    assert chance_of(torch.tensor([3, 0, 3, 1])) == 0.5


def test_batch_norm_in_train_mode_stops_the_evaluation() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    network.eval()
    check_eval_mode(network, "it")
    network[1].train()
    with pytest.raises(BrokenEvaluation, match=r"it is in train mode \(1\)"):
        check_eval_mode(network, "it")


def _row(correct: int, n: int = 100) -> Row:
    return accuracy_row("key", "Title", torch.arange(n) < correct, defence="none", epsilon=0.3)


def test_an_undefended_classifier_must_break() -> None:
    check_undefended(_row(0))
    check_undefended(_row(8))  # traffic signs at 8/255
    with pytest.raises(BrokenEvaluation, match=r"40\.0%"):
        check_undefended(_row(40))


def test_a_purifier_that_nobody_taught_must_break_as_the_classifier_does() -> None:
    check_bad_purifier(_row(1), bare=_row(0))
    check_bad_purifier(_row(12), bare=_row(8))
    with pytest.raises(BrokenEvaluation, match=r"30\.0%.*alone 0\.0%"):
        check_bad_purifier(_row(30), bare=_row(0))
    with pytest.raises(BrokenEvaluation, match=r"40\.0%.*alone 8\.0%"):
        check_bad_purifier(_row(40), bare=_row(8))


def _sweep(*, far: float = 0.0, bare: float = 0.0, purified: float = 0.0) -> Sweep:
    points = (
        *make_card().sweep.points[:1],
        SweepPoint(epsilon=0.3, bare=0.9, purified=0.9),
        SweepPoint(epsilon=0.95, bare=far, purified=0.9),
        SweepPoint(epsilon=1.0, bare=bare, purified=purified),
    )
    return make_card().sweep.model_copy(update={"points": points, "n": 100})


@pytest.mark.parametrize(
    ("sweep", "fault"),
    [
        (_sweep(), None),
        (_sweep(far=0.1, bare=0.1, purified=0.1), None),
        (_sweep(purified=0.4), r"pipeline is still 40\.0% at epsilon 1"),
        (_sweep(bare=0.4), r"alone is still 40\.0% at epsilon 1"),
        (_sweep(far=0.4), None),
    ],
)
def test_the_sweep_must_fall_to_chance(sweep: Sweep, fault: str | None) -> None:
    if fault is None:
        check_sweep(sweep, chance=0.1)
        return
    with pytest.raises(BrokenEvaluation, match=fault):
        check_sweep(sweep, chance=0.1)


def test_far_beyond_epsilon_a_naturally_trained_classifier_must_break() -> None:
    check_far(_sweep(far=0.1, bare=0.1), 0.3, chance=0.1)
    with pytest.raises(BrokenEvaluation, match=r"keeps 40\.0% at epsilon 0\.95"):
        check_far(_sweep(far=0.4), 0.3, chance=0.1)


def _standing(share: float) -> Tensor:
    return torch.arange(1000) < share * 1000


@dataclass(frozen=True)
class _Shares:
    """What each attack leaves standing."""

    autoattack: float = 0.5
    gradient: float = 0.5
    pgd: float = 0.55
    square: float = 0.7
    transfer: float = 0.8
    zero_gradients: float = 0.0


@pytest.mark.parametrize(
    ("shares", "failed"),
    [
        (_Shares(), set()),
        (_Shares(square=0.498), set()),
        (_Shares(square=0.497), {"square"}),
        (_Shares(square=0.4), {"square"}),
        (_Shares(transfer=0.4), {"transfer"}),
        (_Shares(pgd=0.45), {"pgd_margin"}),
        (_Shares(zero_gradients=0.2), {"zero_gradients"}),
        (_Shares(pgd=0.3, square=0.1, transfer=0.2), {"pgd_margin", "square", "transfer"}),
    ],
)
def test_weaker_attacks_that_win_are_told(shares: _Shares, failed: set[str]) -> None:
    checks = masking_checks(
        _standing(shares.autoattack),
        _standing(shares.gradient),
        {"margin": _standing(shares.pgd)},
        _standing(shares.square),
        _standing(shares.transfer),
        shares.zero_gradients,
    )
    assert {check.key for check in checks if not check.passed} == failed


def test_an_attack_that_cheats_stops_the_evaluation() -> None:
    clean = torch.full((2, 1, 8, 8), 0.5)
    robust = torch.ones(2, dtype=torch.bool)
    ball_is_held(Attacked(clean + 0.1, robust), clean, 0.1, "linf")
    ball_is_held(Attacked(clean + 0.1, robust), clean, 0.8, "l2")
    for norm, epsilon in (("linf", 0.09), ("l2", 0.79)):
        with pytest.raises(BrokenEvaluation, match="moved"):
            ball_is_held(Attacked(clean + 0.1, robust), clean, epsilon, norm)
    with pytest.raises(BrokenEvaluation, match="left"):
        ball_is_held(Attacked(clean + 0.6, robust), clean, 0.7, "linf")
