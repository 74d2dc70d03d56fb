import dataclasses
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from tests.training.book import every_recipe
from training.recipe_book import HARDENED, PAPER, PURPOSES, RECIPES
from training.recipe_file import meanings, read_recipe, recipe_text, write_recipe
from training.recipes import Recipe, TeacherStage, overridden

# With a number of epochs that stands in it once.
LONG = overridden(HARDENED, ["distillation.schedule.epochs=97"])


def dataclasses_of(root: type) -> Iterator[type]:
    """The dataclass and all that its settings are made of."""
    yield root
    for hint in get_type_hints(root).values():
        for candidate in (hint, *get_args(hint)):
            if isinstance(candidate, type) and dataclasses.is_dataclass(candidate):
                yield from dataclasses_of(candidate)


@every_recipe
def test_a_written_recipe_comes_back(recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    write_recipe(recipe, path)
    assert read_recipe(path) == recipe


def test_every_setting_has_its_meaning_beside_it() -> None:
    assert TeacherStage in dataclasses_of(Recipe)
    for settings in dataclasses_of(Recipe):
        said = meanings(settings)
        assert said.keys() == {field.name for field in dataclasses.fields(settings)}
        assert all(said.values()), (settings, said)
    text = recipe_text(LONG)
    assert f"epochs = 97  # {meanings(type(LONG.ablation))['epochs']}" in text
    for line in text.splitlines():
        assert not line or line.startswith("#") or "  # " in line, line


def test_a_setting_that_is_none_is_left_out_and_may_be_put_in() -> None:
    text = recipe_text(PAPER)
    assert "attack" not in tomllib.loads(text)["normal_teacher"]
    assert "# [normal_teacher.attack] is left out" in text


def test_an_edited_recipe_is_the_edited_one(tmp_path: Path) -> None:
    text = recipe_text(PAPER)
    assert text.count("seed = 0 ") == text.count("epsilon = 0.3 ") == 1
    text = text.replace("seed = 0 ", "seed = 7 ").replace("epsilon = 0.3 ", "epsilon = 1 ")
    attack = 'through = "pipeline"\nsteps = 2\nstep = 0.5\nepsilon_scale = 1.0\nramp_epochs = 0\n'
    path = tmp_path / "mine.toml"
    path.write_text(f"{text}\n[normal_teacher.attack]\n{attack}")
    recipe = read_recipe(path)
    assert recipe.normal_teacher.attack is not None
    assert recipe.normal_teacher.attack.steps == 2
    clean_only = replace(recipe.normal_teacher, attack=None)
    assert replace(recipe, normal_teacher=clean_only) == replace(PAPER, seed=7, epsilon=1.0)
    assert overridden(recipe, ["seed=8"]) == replace(recipe, seed=8)


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("seed = 0", "sed = 0", r"recipe: settings \['sed', 'seed'\] are unknown or missing"),
        ("seed = 0", "", r"recipe: settings \['seed'\] are unknown or missing"),
        ("epochs = 97", "epoch = 18", r"recipe\.distillation\.schedule: .*'epoch', 'epochs'"),
        ("epochs = 97", "epochs = 1.5", r"distillation\.schedule\.epochs must be .*int.*got 1\.5"),
        ("epochs = 97", "epochs = 2024-01-01", r"schedule\.epochs must be .*int"),
        ("epsilon = 0.3", 'epsilon = "0.3"', r"recipe\.epsilon must be .*float.*got '0\.3'"),
        ("[distillation]", "[distilation]", r"recipe: settings \['distilation'\]"),
        ("steps = 7", "steps = ", r"is no TOML: .*line \d+"),
    ],
)
def test_a_mistake_is_named_with_file_and_setting(
    right: str, wrong: str, message: str, tmp_path: Path
) -> None:
    text = recipe_text(LONG)
    assert text.count(right + " ") + text.count(right + "\n") == 1
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(right, wrong, 1))
    with pytest.raises(ValueError, match=message) as raised:
        read_recipe(path)
    assert str(raised.value).startswith(f"{path}: ")


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"mine\.toml: is no TOML"):
        read_recipe(path)


def test_somebodys_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("mine")
    with pytest.raises(ValueError, match=r"mine\.toml is there already"):
        write_recipe(PAPER, path)
    assert path.read_text() == "mine"
    with pytest.raises(ValueError, match=r"mine\.json: a recipe file's name ends with \.toml"):
        write_recipe(PAPER, tmp_path / "mine.json")


def test_each_recipe_says_what_it_is_for() -> None:
    assert PURPOSES.keys() == RECIPES.keys()
