"""Encoders of purifiers that learn to label attacked images before all else."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from tests.training.tiny_runs import CLASSES, SPEC, tiny_recipe, tiny_run, with_skips
from training.checkpoints import CheckpointError
from training.encoders import train_encoder
from training.networks import ConvAutoencoder
from training.recipes import (
    Attack,
    EncoderStage,
    Recipe,
    Schedule,
    Shape,
    optimizer_steps,
    recipe_of,
    settings_of,
)
from training.run import Run, robustness
from training.stages import run_stages, train_classifier, train_student
from training.weights import load_networks, weights_of

ATTACK = Attack("pipeline", steps=2, step=0.7)
# It ends with the weights that it began with.
STILL = Schedule(1, batch_size=8, learning_rate=1e-12, weight_decay=0.0)


def with_encoders(epochs: int = 2) -> Recipe:
    """As hardened recipes have it: encoders first, and purifiers without skips."""
    recipe = tiny_recipe(epochs)
    return with_skips(replace(recipe, encoder=EncoderStage(recipe.ablation, ATTACK)), False)


def weights(network: nn.Module) -> torch.Tensor:
    """All weights of its encoder."""
    parameters = network.get_submodule("encoder").parameters()
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


def begins_with(run: Run, name: str, encoder: str) -> bool:
    """Whether the purifier, which hardly learnt, has the encoder of that stage."""
    found, expected = (weights(run.networks[key]) for key in (name, encoder))
    return torch.allclose(found, expected, atol=1e-6, rtol=0.0)


class Turned(nn.Module):
    """A classifier that takes each class for the next one."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of images."""
        logits: torch.Tensor = self.classifier(images)
        return logits.roll(1, dims=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Only read by the tests."""
    run = tiny_run(tmp_path_factory.mktemp("whole"), with_encoders())
    run_stages(run)
    return run


def test_teacher_student_and_surrogate_have_one_each(whole: Run) -> None:
    encoders = [name for name in whole.histories if name.endswith("encoder")]
    assert encoders == ["student_encoder", "teacher_encoder", "surrogate_encoder"]
    for name in encoders:
        assert whole.histories[name][-1].keys() == {"epoch", "loss", "clean", "attacked", "seconds"}
    student, surrogate = (weights(whole.networks[name]) for name in encoders[::2])
    assert not torch.equal(student, surrogate)


def test_a_purifier_begins_with_the_encoder_of_its_stage(tmp_path: Path, whole: Run) -> None:
    recipe = whole.recipe
    run = tiny_run(
        tmp_path,
        replace(
            recipe,
            ablation=STILL,
            surrogate=STILL,
            adversarial_teacher=replace(recipe.adversarial_teacher, schedule=STILL),
            distillation=replace(recipe.distillation, schedule=STILL),
        ),
    )
    run_stages(run)
    for names, encoder in (
        (["adversarial_teacher"], "teacher_encoder"),
        (["student", "ablation_both", "ablation_none_2"], "student_encoder"),
        (["surrogate_purifier"], "surrogate_encoder"),
    ):
        for name in names:
            assert begins_with(run, name, encoder), name
    normal = weights(run.networks["normal_teacher"])
    assert not torch.equal(normal, weights(run.networks["teacher_encoder"]))
    # All else is the purifiers' own.
    heads = [
        run.networks[name].get_parameter("head.weight") for name in ("student", "ablation_both")
    ]
    assert not torch.equal(heads[0], heads[1])


def test_of_networks_without_skips_only_the_normal_teacher_has_them(
    tmp_path: Path, whole: Run
) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(weights_of(whole.trained))
    loaded = load_networks(path, whole.recipe, SPEC, len(CLASSES))
    images = torch.rand(3, *SPEC.shape)
    purifiers = [name for name in loaded if not name.endswith("classifier")]
    assert {"student", "ablation_both", "surrogate_purifier"} < set(purifiers)
    for name in purifiers:
        trained = whole.networks[name]
        assert isinstance(trained, ConvAutoencoder)
        assert trained.skips is (name == "normal_teacher"), name
        torch.testing.assert_close(loaded[name](images), trained(images))


@pytest.mark.parametrize("skips", [True, False])
def test_what_decoders_see_is_nothing_to_encoders_and_all_to_purifiers(
    tmp_path: Path, whole: Run, skips: bool
) -> None:
    for path in whole.work.glob("*.pt"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    lines: list[str] = []
    pooled = replace(whole.recipe, teacher=replace(whole.recipe.teacher, pooled_maps=3))
    recipe = with_skips(whole.recipe, True) if skips else pooled
    run = tiny_run(tmp_path, recipe, report=lines.append)
    with pytest.raises(CheckpointError, match=r"adversarial_teacher\.pt"):
        run_stages(run)
    stages = ["classifier", "normal_teacher", "student_encoder", "teacher_encoder"]
    assert lines == [f"{stage}: found 2 of 2 epochs done" for stage in stages]


def test_it_learns_to_label_images_under_attack(tmp_path: Path) -> None:
    stage = EncoderStage(replace(tiny_recipe(30).ablation, learning_rate=2e-2), ATTACK)
    run = tiny_run(tmp_path, replace(tiny_recipe(), epsilon=0.1))
    name = "student_encoder"
    train_encoder(run, name, stage, Shape((8, 16), (0, 1)))
    first, *_, last = run.histories[name]
    assert last["loss"] < 0.5 * first["loss"]
    assert last["attacked"] > 0.5  # chance is a third
    network = run.networks[name]
    assert last["attacked"] == pytest.approx(robustness(run, network, network), abs=1e-6)


def test_it_learns_the_answers_of_the_classifier_that_it_is_for(tmp_path: Path) -> None:
    recipe = tiny_recipe(30, learning_rate=2e-2)
    stage = EncoderStage(recipe.ablation, ATTACK, answers=1.0)
    run = tiny_run(tmp_path, replace(recipe, epsilon=0.01))
    train_classifier(run, "classifier", seed=0)
    run.networks["turned"] = Turned(run.networks["classifier"])
    run.identities["turned"] = "turned"
    for against, lowest, highest in (("classifier", 0.9, 1.0), ("turned", 0.0, 0.1)):
        train_encoder(run, f"of {against}", stage, Shape((8, 16), (0, 1)), against=against)
        assert lowest <= run.histories[f"of {against}"][-1]["clean"] <= highest


def test_its_checkpoint_is_bound_to_the_classifier_only_where_it_learns_answers(
    tmp_path: Path,
) -> None:
    stage = EncoderStage(tiny_recipe().ablation, ATTACK)
    run = tiny_run(tmp_path)
    train_classifier(run, "classifier", seed=0)
    for answers, bound in ((0.0, False), (0.5, True)):
        name, asking = f"asking {answers}", replace(stage, answers=answers)
        train_encoder(run, name, asking, run.recipe.student)
        run.identities["classifier"] = f"another than {answers}"
        if bound:
            with pytest.raises(CheckpointError, match=name):
                train_encoder(run, name, asking, run.recipe.student)
        else:
            train_encoder(run, name, asking, run.recipe.student)


def test_the_surrogates_encoder_asks_the_surrogates_classifier(tmp_path: Path) -> None:
    recipe = with_encoders(1)
    asking = EncoderStage(recipe.ablation, ATTACK, answers=0.5)
    run = tiny_run(tmp_path, replace(recipe, encoder=asking, ablation_seeds=0))
    run_stages(run)
    run.identities["classifier"] = "another"
    own = "surrogate_classifier"
    train_encoder(run, "surrogate_encoder", asking, recipe.student, against=own)
    run.identities[own] = "another"
    with pytest.raises(CheckpointError, match="surrogate_encoder"):
        train_encoder(run, "surrogate_encoder", asking, recipe.student, against=own)


def test_teacher_and_student_of_like_encoders_begin_with_one(tmp_path: Path) -> None:
    recipe = with_encoders(1)
    run = tiny_run(
        tmp_path,
        replace(
            recipe,
            teacher=replace(recipe.student, residual=True, pooled_maps=2),  # which decoders have
            adversarial_teacher=replace(recipe.adversarial_teacher, schedule=STILL),
        ),
    )
    run_stages(run)
    encoders = {name for name in run.histories if "_enc" in name}
    assert encoders == {"student_encoder", "surrogate_encoder"}
    assert begins_with(run, "adversarial_teacher", "student_encoder")


def test_what_is_of_the_surrogate_may_learn_for_another_time(tmp_path: Path) -> None:
    recipe = with_encoders(1)
    run = tiny_run(
        tmp_path,
        replace(
            recipe,
            surrogate_classifier=replace(recipe.ablation, epochs=3),
            surrogate_encoder=replace(recipe.ablation, epochs=2),
        ),
    )
    run_stages(run)
    epochs = {name: len(history) for name, history in run.histories.items()}
    assert (epochs["classifier"], epochs["surrogate_classifier"]) == (1, 3)
    assert (epochs["student_encoder"], epochs["surrogate_encoder"]) == (1, 2)


def test_what_is_kept_of_a_run_is_its_purifiers(whole: Run) -> None:
    assert whole.histories.keys() - whole.trained.keys() == {
        "teacher_encoder",
        "student_encoder",
        "surrogate_encoder",
    }


@pytest.mark.parametrize("through", ["classifier", "pipeline"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_its_attack_has_one_thing_to_attack(
    tmp_path: Path, through: Literal["classifier", "pipeline"], share: float
) -> None:
    attack = replace(ATTACK, through=through, bare_share=share)
    run = tiny_run(tmp_path)
    train_encoder(run, "it", EncoderStage(run.recipe.ablation, attack), run.recipe.student)
    assert run.histories["it"][-1]["loss"] < 2.0


def test_a_student_of_another_encoder_is_refused(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, with_encoders())
    run_stages(run)
    (tmp_path / "student_encoder.pt").unlink()
    stage = EncoderStage(run.recipe.ablation, ATTACK, clean_cross_entropy=0.1)
    train_encoder(run, "student_encoder", stage, run.recipe.student)
    with pytest.raises(CheckpointError, match=r"student\.pt"):
        train_student(run, "student", run.recipe.distillation, encoder="student_encoder")


def test_recipes_keep_it_among_their_settings() -> None:
    recipe = with_encoders()
    assert recipe_of(settings_of(recipe)) == recipe
    later = ("encoder", "surrogate_classifier", "surrogate_encoder")
    before = {name: value for name, value in settings_of(recipe).items() if name not in later}
    assert recipe_of(before).encoder is None
    assert optimizer_steps(recipe, 32)["encoder"] == 8
    other = replace(recipe.ablation, epochs=3)
    own = replace(recipe, surrogate_classifier=other, surrogate_encoder=other)
    assert recipe_of(settings_of(own)) == own
    assert optimizer_steps(own, 32)["surrogate_encoder"] == 12
    assert optimizer_steps(own, 32)["surrogate_classifier"] == 12
    for unknown in (recipe, replace(own, encoder=None)):
        assert "surrogate_encoder" not in optimizer_steps(unknown, 32)
    assert "encoder" not in optimizer_steps(tiny_recipe(), 32)
