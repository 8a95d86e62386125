"""All recipes of detectors by name."""

from __future__ import annotations

from collections.abc import Callable

from resnest.detection import lvis_recipes, one_stage_recipes, recipes
from resnest.detection.recipes import DetectionRecipe

RECIPES: dict[str, Callable[[], DetectionRecipe]] = {
    **recipes.RECIPES,
    **one_stage_recipes.RECIPES,
    **lvis_recipes.RECIPES,
}
