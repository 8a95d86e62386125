"""The recipe of a classifier.

ClassificationRecipe(name="flowers", model=ModelSettings(name="resnest50"), train=TrainSettings(epochs=10))
"""

from __future__ import annotations

from dataclasses import dataclass

from resnest.recipes.schema import Expect, Recipe


@dataclass(frozen=True, kw_only=True)
class ClassificationExpect(Expect):
    """Expected accuracy of the recipe, a fraction."""

    top1: float | None = None


@dataclass(frozen=True, kw_only=True)
class ClassificationRecipe(Recipe):
    """The recipe of a classifier: only the common sections."""

    task: str = "classification"
    expect: ClassificationExpect | None = None

    def listing(self) -> tuple[str, dict[str, str]]:
        return "Image classification", {"top-1": "top1"}
