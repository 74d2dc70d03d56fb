"""What the commands `list` and `init` of `limbeck-train` do."""

import json
import sys
from argparse import Namespace
from pathlib import Path

from app.bundle import read_manifest
from training.recipe_book import IMAGES, PURPOSES, RECIPES, Images
from training.recipe_file import SUFFIX, recipe_text, write_recipe
from training.recipes import Recipe, recipe_of, settings_of

_HINT = """
ink is for grey images that are nearly black and white, photo for all others; run finds out which
object is for photographs that mean the same when mirrored; run --images object takes it
limbeck-train list <recipe>   shows its settings as --set takes them
limbeck-train init <recipe>   writes them with their meanings to a file to edit
limbeck-train init <bundle>   writes those that the bundle was trained by
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
    """Write a commented recipe file; `-` prints it.

    Raises:
        ValueError: there is no such recipe and no such bundle, or the file is there already.
    """
    recipe = _recipe_of_name_or_bundle(arguments.recipe, arguments.images)
    if arguments.output == Path("-"):
        sys.stdout.write(recipe_text(recipe))
        return
    path = arguments.output or Path(recipe.name + SUFFIX)
    write_recipe(recipe, path)
    print(f"wrote {path}; edit it, then: limbeck-train run {path} --data <folder>")


def _recipe_of_name_or_bundle(name: str, images: Images) -> Recipe:
    """The recipe of that name, or the one that a bundle was trained by."""
    if name in RECIPES:
        return RECIPES[name][images]
    if not Path(name).is_dir():
        known = ", ".join(sorted(RECIPES))
        raise ValueError(f"no recipe {name!r}: choose from {known}, or give a bundle's folder")
    return recipe_of(read_manifest(Path(name)).provenance.settings)


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
