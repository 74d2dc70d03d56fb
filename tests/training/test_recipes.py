import json
import re
from dataclasses import FrozenInstanceError, replace

import pytest

from tests.training.book import every_recipe
from training.recipe_book import HARDENED, PAPER, RECIPES
from training.recipes import (
    Recipe,
    Shape,
    binding_settings,
    optimizer_steps,
    overridden,
    recipe_of,
    settings_of,
    shape_of,
)


@every_recipe
def test_a_recipe_comes_back_from_its_settings(recipe: Recipe) -> None:
    plain = json.loads(json.dumps(settings_of(recipe)))
    assert recipe_of(plain) == recipe
    assert overridden(recipe, []) == recipe


def test_recipes_are_known_by_their_names() -> None:
    for name, variants in RECIPES.items():
        assert {recipe.name for recipe in variants.values()} == {name}
        assert variants["ink"].epsilon == 0.3
        assert variants["photo"].epsilon == 8 / 255
        assert variants["photo"].student.contrast_gain is None


def test_only_what_means_the_same_when_mirrored_is_mirrored() -> None:
    for variants in RECIPES.values():
        flips = {
            images: set(re.findall('"flip": (true|false)', json.dumps(settings_of(recipe))))
            for images, recipe in variants.items()
        }
        assert flips == {"ink": {"false"}, "photo": {"false"}, "object": {"true"}}


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        PAPER.epsilon = 0.1  # type: ignore[misc]


def test_paper_attacks_the_classifier_and_hardened_the_pipeline() -> None:
    for name, through in (("paper", "classifier"), ("hardened", "pipeline")):
        for recipe in RECIPES[name].values():
            attacked = recipe.adversarial_teacher, recipe.distillation, recipe.encoder
            attacks = [stage.attack for stage in attacked if stage]
            assert {attack.through for attack in attacks if attack} == {through}
            assert recipe.normal_teacher.attack is None
    assert PAPER.classifier == HARDENED.classifier


def test_hardened_purifiers_have_encoders_first_and_no_skips() -> None:
    for name, variants in RECIPES.items():
        for recipe in variants.values():
            hardened = name == "hardened"
            assert (recipe.encoder is not None) == hardened
            assert recipe.teacher.skips != hardened and recipe.student.skips != hardened


def test_a_normal_teacher_has_skips_and_no_sigmoid_whatever_the_others_do() -> None:
    networks = ("normal_teacher", "adversarial_teacher", "student", "ablation_both")
    recipe = HARDENED
    assert [shape_of(recipe, name).skips for name in networks] == [True, False, False, False]
    normal = shape_of(recipe, "normal_teacher")
    assert normal == replace(recipe.teacher, skips=True, pooled_maps=0, contrast_gain=None)
    assert shape_of(recipe, "surrogate_purifier") == recipe.student
    with pytest.raises(ValueError, match="no purifier is called normal-teacher"):
        shape_of(recipe, "normal-teacher")


def test_checkpoints_are_bound_to_no_later_setting_at_its_default() -> None:
    plain = Shape((4,), (0,))
    assert binding_settings(plain) == {"widths": (4,), "depths": (0,), "residual": False}
    assert binding_settings(replace(plain, stem=2))["stem"] == 2
    assert "encoder" not in binding_settings(PAPER)
    bound = binding_settings(HARDENED)
    assert bound["student"]["contrast_gain"] == 20.0 and "answers" not in bound["encoder"]
    assert bound["normal_teacher"]["attack"] is None


def test_overrides_reach_every_depth_and_type() -> None:
    changed = overridden(
        PAPER,
        [
            "seed=7",
            "epsilon=1",
            "distillation.schedule.epochs=3",
            "student.widths=[4, 8]",
            "student.residual=true",
            "distillation.attack.through=pipeline",
            "distillation.attack.steps = 2",
            "distillation.normal_share=[1, 0.5]",
            "classifier.schedule.augmentation.flip=true",
            "adversarial_teacher.attack=null",
        ],
    )
    schedule = replace(PAPER.distillation.schedule, epochs=3)
    attack = replace(PAPER.distillation.attack, through="pipeline", steps=2)
    distillation = replace(
        PAPER.distillation, schedule=schedule, attack=attack, normal_share=(1.0, 0.5)
    )
    assert changed.distillation == distillation
    assert (changed.seed, changed.epsilon) == (7, 1.0)
    assert isinstance(changed.epsilon, float)
    assert changed.student == replace(PAPER.student, widths=(4, 8), residual=True)
    assert changed.classifier.schedule.augmentation.flip
    assert changed.adversarial_teacher.attack is None
    assert changed.teacher == PAPER.teacher


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("distillation.schedule.epoch=3", r"no setting 'distillation\.schedule\.epoch'.*epochs"),
        ("distilation.schedule.epochs=3", r"no setting .* known there"),
        ("seed.more=3", "no setting 'seed.more'"),
        ("seed", "wants path=value, got 'seed'"),
        ("=3", "no setting ''"),
        ("seed=1.5", r"recipe\.seed must be .*int.*got 1\.5"),
        ("seed=true", r"recipe\.seed must be .*int"),
        ("epsilon=true", r"recipe\.epsilon must be .*float"),
        ("epsilon=much", r"recipe\.epsilon must be .*float.*got 'much'"),
        ("student.residual=1", r"student\.residual must be .*bool"),
        ("student.widths=4", r"student\.widths must be"),
        ("student.widths=[4, 8.5]", r"student\.widths must be .*int.*got 8\.5"),
        ("distillation.normal_share=[1]", r"normal_share must be"),
        ("distillation.attack.through=purifier", r"through must be .*got 'purifier'"),
        ("distillation.attack=null", r"distillation\.attack must be an object"),
        ("distillation.attack={}", "are unknown or missing"),
        ("normal_teacher.attack=3", "must be an object, got 3"),
        ("epsilon=8", r"recipe\.epsilon must be above 0 and at most 1, got 8\.0"),
        ("seed=-1", r"recipe\.seed must be at least 0 .*, got -1"),
        ("distillation.schedule.epochs=-3", r"epochs must be at least 1, got -3"),
        ("ablation.batch_size=0", r"ablation\.batch_size must be at least 1, got 0"),
        ("surrogate.learning_rate=-1", r"learning_rate must be above 0, got -1"),
        ("surrogate.learning_rate=NaN", r"learning_rate must be above 0, got nan"),
        ("surrogate.weight_decay=-1", r"weight_decay must be at least 0, got -1"),
        ("distillation.attack.steps=0", r"attack\.steps must be at least 1, got 0"),
        ("distillation.normal_share=[0.5, 2]", r"normal_share must be .*at most 1, got 2"),
        ("student.widths=[4, 0]", r"student\.widths must be at least 1, got 0"),
        ("student.contrast_gain=0", r"contrast_gain must be above 0, got 0"),
        ("student.pooled_maps=6", r"recipe\.student: pooled_maps=6 goes without skips only: set"),
        ("validation_fraction=1.5", r"validation_fraction must be .*at most 1, got 1\.5"),
    ],
)
def test_a_wrong_override_is_named(assignment: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        overridden(PAPER, [assignment])


def test_settings_of_another_program_are_refused() -> None:
    settings = settings_of(PAPER)
    del settings["seed"]
    with pytest.raises(ValueError, match=r"recipe: settings \['seed'\] are unknown or missing"):
        recipe_of(settings)
    with pytest.raises(ValueError, match=r"\['colour'\]"):
        recipe_of({**settings_of(PAPER), "colour": "red"})


def test_settings_recorded_before_a_setting_existed_have_its_default() -> None:
    older = settings_of(PAPER)
    del older["unseen_l2"], older["student"]["pooled_maps"]
    assert recipe_of(older) == PAPER
    assert overridden(PAPER, ["unseen_l2=1.5"]).unseen_l2 == 1.5


def test_steps_are_counted_for_every_stage() -> None:
    steps = optimizer_steps(overridden(PAPER, ["ablation.batch_size=500"]), images=400)
    assert steps["classifier"] == 3 * PAPER.classifier.schedule.epochs
    assert steps["ablation"] == PAPER.ablation.epochs  # one batch of all there are
