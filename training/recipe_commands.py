"""What the commands `list` and `init` of `limbeck-train` do."""

import json
import sys
from argparse import Namespace
from pathlib import Path

from training.recipe_book import IMAGES, PURPOSES, RECIPES
from training.recipe_file import SUFFIX, recipe_text, write_recipe
from training.recipes import Recipe, settings_of

_HINT = """
ink is for grey images that are nearly black and white, photo for all others; run finds out which
object is for photographs that mean the same when mirrored; run --images object takes it
limbeck-train list <recipe>   shows its settings as --set takes them
limbeck-train init <recipe>   writes them with their meanings to a file to edit
limbeck-train run <recipe>    trains by it; a file of init does as well"""


def show(arguments: Namespace) -> None:
    """Print what each recipe is for, or one with all its settings."""
    if arguments.recipe is not None:
        recipe = RECIPES[arguments.recipe][arguments.images]
        title = f"{recipe.name} for {arguments.images}"
        print(f"{title}: L-inf epsilon {recipe.epsilon:g}, seed {recipe.seed}")
        _print_settings(settings_of(recipe))
        return
    for name, variants in RECIPES.items():
        print(f"{name}: {PURPOSES[name]}")
        for images in IMAGES:
            print(f"  {images}: {_terms(variants[images])}")
    print(_HINT)


def init(arguments: Namespace) -> None:
    """Write a commented recipe file; `-` prints it."""
    recipe = RECIPES[arguments.recipe][arguments.images]
    if arguments.output == Path("-"):
        sys.stdout.write(recipe_text(recipe))
        return
    path = arguments.output or Path(recipe.name + SUFFIX)
    write_recipe(recipe, path)
    print(f"wrote {path}; edit it, then: limbeck-train run {path} --data <folder>")


def _terms(recipe: Recipe) -> str:
    """What a recipe trains against and how long, in one line."""
    student = recipe.distillation
    victims = {"classifier": "the classifier alone", "pipeline": "purifier and classifier together"}
    encoder = recipe.encoder
    first = f" after {encoder.schedule.epochs} of its encoder" if encoder else ""
    return (
        f"L-inf epsilon {recipe.epsilon:g}, attacks on {victims[student.attack.through]}, "
        f"student of widths {', '.join(map(str, recipe.student.widths))} for "
        f"{student.schedule.epochs} epochs{first}, seed {recipe.seed}"
    )


def _print_settings(settings: dict[str, object], path: str = "") -> None:
    """Every setting as `--set` takes it."""
    for name, value in settings.items():
        if isinstance(value, dict):
            _print_settings(value, f"{path}{name}.")
        else:
            print(f"  {path}{name}={json.dumps(value)}")
