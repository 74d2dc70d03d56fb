import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.training.small_networks import Linear
from training.attacks import Norm
from training.autoattack import STANDARD, Settings, attacks_for, autoattack
from training.state import State


def _problem() -> tuple[Linear, Tensor, Tensor]:
    torch.manual_seed(0)
    model = Linear(classes=4)
    images = torch.rand(24, 1, 8, 8) * 0.4 + 0.3
    labels = model(images).argmax(1)
    labels[:2] = (labels[:2] + 1) % 4
    return model, images, labels


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.01), ("l2", 0.08)])
def test_it_finds_the_optimum_on_a_linear_model(norm: Norm, epsilon: float) -> None:
    model, images, labels = _problem()
    lines: list[str] = []
    settings = Settings(epsilon, norm, queries=20, batch_size=24)
    found = autoattack(model, images, labels, settings, progress=lines.append)
    expected = model.standing(images, labels, epsilon, norm)
    assert 2 < int(expected.sum()) < 22
    assert int((found.robust != expected).sum()) <= 1
    order = float("inf") if norm == "linf" else 2.0
    moved = torch.linalg.vector_norm((found.images - images).flatten(1), order, dim=1)
    assert float(moved.max()) <= epsilon * 1.0001
    assert "22 images, at most" in lines[0]
    assert any("apgd-t batch 1/" in line and "min left" in line for line in lines)


def test_an_interrupted_attack_continues_where_it_was(tmp_path: Path) -> None:
    model, images, labels = _problem()
    settings = Settings(0.01, attacks=("apgd-ce", "square"), queries=20, batch_size=6)
    whole = autoattack(model, images, labels, settings, progress=lambda line: None)

    class Killed(BaseException):
        pass

    lines: list[str] = []

    def kill_at_third(line: str) -> None:
        lines.append(line)
        if len(lines) == 4:
            raise Killed

    state = State(tmp_path)
    with pytest.raises(Killed):
        autoattack(model, images, labels, settings, state=state, progress=kill_at_third)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    assert len(kept) == 3
    resumed = autoattack(model, images, labels, settings, state=state, progress=lambda line: None)
    assert torch.equal(resumed.images, whole.images)
    assert torch.equal(resumed.robust, whole.robust)
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_other_weights_do_not_resume(tmp_path: Path) -> None:
    model, images, labels = _problem()
    settings = Settings(0.02, attacks=("apgd-ce",))
    for _ in range(2):
        autoattack(
            model, images, labels, settings, state=State(tmp_path), progress=lambda line: None
        )
        model.head.weight *= 1.5
    assert len(list(tmp_path.iterdir())) == 2


def test_what_the_attack_suspects_is_handed_on() -> None:
    model, images, labels = _problem()
    probabilities = nn.Sequential(model, nn.Softmax(1)).eval()
    settings = Settings(0.02, attacks=("apgd-ce",))
    found = autoattack(probabilities, images, labels, settings, progress=lambda line: None)
    assert any("probability distribution" in warning for warning in found.warnings)


def test_random_numbers_and_tracer_are_left_alone() -> None:
    model, images, labels = _problem()
    seen = []

    def tracer(frame: object, event: str, argument: object) -> None:
        seen.append(event)

    before = sys.gettrace()
    state = torch.get_rng_state()
    sys.settrace(tracer)
    try:
        settings = Settings(0.02, attacks=("square",), queries=5)
        autoattack(model, images, labels, settings, progress=lambda line: None)
        after = sys.gettrace()
    finally:
        sys.settrace(before)
    assert after is tracer and seen
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_are_attacked_too(classes: int) -> None:
    assert attacks_for(classes) != STANDARD == attacks_for(4)
    torch.manual_seed(1)
    model = Linear(classes=classes)
    images = torch.rand(6, 1, 8, 8)
    labels = model(images).argmax(1)
    settings = Settings(0.9, attacks=attacks_for(classes), queries=20)
    found = autoattack(model, images, labels, settings, progress=lambda line: None)
    assert not found.robust.any()
