"""Encoders of purifiers that learn to label attacked images before all else."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.training.tiny_runs import CLASSES, SPEC, tiny_recipe, tiny_run
from training.recipes import (
    Attack,
    EncoderStage,
    Recipe,
    Shape,
    optimizer_steps,
    recipe_of,
    settings_of,
)
from training.run import Run, robustness
from training.stages import run_stages, train_encoder
from training.weights import load_networks, weights_of

ATTACK = Attack("pipeline", steps=2, step=0.7)


def with_encoders(epochs: int = 2) -> Recipe:
    recipe = tiny_recipe(epochs)
    return replace(recipe, encoder=EncoderStage(recipe.ablation, ATTACK))


def convolution(network: nn.Module) -> torch.Tensor:
    """The first weights of its encoder."""
    return next(network.get_submodule("encoder").parameters()).detach()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Only read by the tests."""
    run = tiny_run(tmp_path_factory.mktemp("whole"), with_encoders())
    run_stages(run)
    yield run


def test_a_recipe_that_wants_none_trains_none(tmp_path: Path) -> None:
    assert train_encoder(tiny_run(tmp_path), "student_encoder", tiny_recipe().student) is None
    assert not list(tmp_path.glob("*.pt"))


def test_teacher_student_and_surrogate_have_one_each(whole: Run) -> None:
    encoders = [name for name in whole.histories if name.endswith("encoder")]
    assert encoders == ["teacher_encoder", "student_encoder", "surrogate_encoder"]
    for name in encoders:
        assert whole.histories[name][-1].keys() == {"epoch", "loss", "clean", "attacked", "seconds"}
    student, surrogate = (convolution(whole.networks[name]) for name in encoders[1:])
    assert not torch.equal(student, surrogate)


def test_a_purifier_begins_with_the_encoder_of_its_stage(tmp_path: Path, whole: Run) -> None:
    # With a learning rate of next to nothing it ends with it, too.
    recipe = whole.recipe
    still = replace(recipe.ablation, learning_rate=1e-12, weight_decay=0.0, ema_decay=0.0)
    run = tiny_run(
        tmp_path,
        replace(
            recipe,
            ablation=still,
            surrogate=still,
            adversarial_teacher=replace(recipe.adversarial_teacher, schedule=still),
            distillation=replace(recipe.distillation, schedule=still),
        ),
    )
    run_stages(run)
    for names, encoder in (
        (["adversarial_teacher"], "teacher_encoder"),
        (["student", "ablation_both", "ablation_none_2"], "student_encoder"),
        (["surrogate_purifier"], "surrogate_encoder"),
    ):
        for name in names:
            found, expected = (convolution(run.networks[key]) for key in (name, encoder))
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=0.0, msg=name)
    normal = convolution(run.networks["normal_teacher"])
    assert not torch.equal(normal, convolution(run.networks["teacher_encoder"]))
    # All else is the purifiers' own.
    heads = [
        run.networks[name].get_parameter("head.weight") for name in ("student", "ablation_both")
    ]
    assert not torch.equal(heads[0], heads[1])


def test_it_learns_to_label_images_under_attack(tmp_path: Path) -> None:
    stage = EncoderStage(replace(tiny_recipe(30).ablation, learning_rate=2e-2), ATTACK)
    run = tiny_run(tmp_path, replace(tiny_recipe(), encoder=stage, epsilon=0.1))
    name = train_encoder(run, "student_encoder", Shape((8, 16), (0, 1)))
    assert name == "student_encoder"
    first, *_, last = run.histories[name]
    assert last["loss"] < 0.5 * first["loss"]
    assert last["attacked"] > 0.5  # chance is a third
    network = run.networks[name]
    assert last["attacked"] == pytest.approx(robustness(run, network, network), abs=1e-6)


def test_weights_come_back_with_their_encoders(tmp_path: Path, whole: Run) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(weights_of(whole.trained))
    assert any(name.startswith("surrogate_encoder.") for name in load_file(path))
    networks = load_networks(path, whole.recipe, SPEC, len(CLASSES))
    for name, network in whole.networks.items():
        found = networks[name].state_dict()
        assert found.keys() == network.state_dict().keys(), name
        assert all(torch.equal(found[key], value) for key, value in network.state_dict().items())


def test_recipes_keep_it_among_their_settings() -> None:
    recipe = with_encoders()
    assert recipe_of(settings_of(recipe)) == recipe
    before = {name: value for name, value in settings_of(recipe).items() if name != "encoder"}
    assert recipe_of(before).encoder is None
    assert optimizer_steps(recipe, 32)["encoder"] == 8
    assert "encoder" not in optimizer_steps(tiny_recipe(), 32)
