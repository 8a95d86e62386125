"""Complete, typed training settings: one recipe is everything that a run depends on but the data. No torch."""

from resnest.recipes.catalogue import RECIPES, find_recipe
from resnest.recipes.reading import override, read_recipe, to_yaml
from resnest.recipes.schema import Expect, ModelSettings, OptimSettings, Recipe, TrainerSettings, TrainSettings

__all__ = [
    "RECIPES",
    "Expect",
    "ModelSettings",
    "OptimSettings",
    "Recipe",
    "TrainSettings",
    "TrainerSettings",
    "find_recipe",
    "override",
    "read_recipe",
    "to_yaml",
]
