"""The recipe of a counter, and those that come with it."""

from __future__ import annotations

from dataclasses import dataclass

from resnest.recipes.schema import ModelSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class CountingRecipe(Recipe):
    """Of a counter: it has the common sections alone."""

    task: str = "counting"

    def listing(self) -> tuple[str, dict[str, str]]:
        return "Counting", {"exact": "exact"}


def count_dots() -> CountingRecipe:
    """resnest train count_dots --data dots"""
    return CountingRecipe(name="count_dots", summary="how many dots", model=ModelSettings(name="resnest14"))


RECIPES = {"count_dots": count_dots}
