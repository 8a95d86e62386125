"""The recipes of the package, by task. Each docstring has its purpose and command.

find_recipe("imagenette")
find_recipe("my-recipe.yaml")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from resnest.errors import unknown
from resnest.recipes.reading import read_recipe
from resnest.recipes.schema import Recipe
from resnest.tasks import TASKS, load_object, task_info


@cache
def all_recipes() -> Mapping[str, Callable[[], Recipe]]:
    """The functions that build them, by name."""
    return {name: build for task in TASKS for name, build in load_object(task_info(task).recipes).items()}


def find_recipe(name: str) -> Recipe:
    """A recipe by name, or from a YAML file.

    Raises:
        ResnestError: for an unknown name, with the nearest known one.
    """
    if name in all_recipes():
        return all_recipes()[name]()
    if name.endswith((".yaml", ".yml")):
        return read_recipe(Path(name))
    raise unknown("recipe", name, all_recipes(), hint="`resnest recipes` lists them; a file must end in .yaml.")
