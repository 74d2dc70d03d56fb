"""A test's parameter `recipe`: every variant of every recipe in the book."""

import pytest

from training.recipe_book import RECIPES

every_recipe = pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(recipe, id=f"{name}-{images}")
        for name, variants in RECIPES.items()
        for images, recipe in variants.items()
    ],
)
