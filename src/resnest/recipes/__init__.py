"""Recipes: complete, typed settings of a training run, except its data. No torch."""

from resnest.recipes.reading import all_recipes, find_recipe, override, read_recipe, to_yaml
from resnest.recipes.schema import Expect, ModelSettings, OptimSettings, Recipe, TrainerSettings, TrainSettings

__all__ = [
    "Expect",
    "ModelSettings",
    "OptimSettings",
    "Recipe",
    "TrainSettings",
    "TrainerSettings",
    "all_recipes",
    "find_recipe",
    "override",
    "read_recipe",
    "to_yaml",
]
