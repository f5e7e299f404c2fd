"""Recipes of the benchmarks' slides at a size for tests."""

from dataclasses import replace

from benchmarks.slide_recipes import RECIPES, SlideRecipe


def small(name: str) -> SlideRecipe:
    """The recipe on 14 × 12 tiles, the last ones cut, with much tissue."""
    recipe = RECIPES[name]
    side = recipe.tile_px
    size = {"width_px": 14 * side - 30, "height_px": 12 * side - 50}
    return replace(recipe, **size, steps=recipe.steps[:2], tissue_share=0.6, pieces=1)
