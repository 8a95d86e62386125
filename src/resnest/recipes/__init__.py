"""Recipes: complete, typed settings of a training run, except its data. No torch."""

from resnest.recipes.catalogue import all_recipes, find_recipe
from resnest.recipes.reading import override, read_recipe, to_yaml
from resnest.recipes.schema import Expect, Recipe
from resnest.recipes.settings import ModelSettings, OptimSettings, TrainerSettings, TrainSettings

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
