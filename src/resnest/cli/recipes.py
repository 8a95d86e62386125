"""`resnest recipes`: the recipes of the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from resnest.errors import ResnestError, unknown

if TYPE_CHECKING:
    from resnest.recipes import Recipe


def recipes(
    action: Annotated[str | None, typer.Argument(help="show: print one recipe as YAML.")] = None,
    name: Annotated[str | None, typer.Argument(help="Name of the recipe.")] = None,
) -> None:
    """List the recipes by task, or print one as YAML.

    `resnest recipes show NAME > mine.yaml` gives a file to edit and to train with.
    """
    from resnest.recipes import all_recipes, find_recipe, to_yaml

    if action is None:
        _list([recipe() for recipe in all_recipes().values()])
    elif action != "show":
        raise unknown("action", action, ["show"])
    elif name is None:
        raise ResnestError("resnest recipes show: which one? " + ", ".join(all_recipes()))
    else:
        typer.echo(to_yaml(find_recipe(name)), nl=False)


def _list(known: Sequence[Recipe]) -> None:
    """One block per task; figures in percent, published ones marked."""
    blocks: dict[str, tuple[dict[str, str], list[Recipe]]] = {}
    for recipe in known:
        title, figures = recipe.listing()
        blocks.setdefault(title, (figures, []))[1].append(recipe)
    for title, (figures, recipes) in blocks.items():
        _block(title, figures, recipes)
    typer.echo("Figures are percent. * published by the authors, not repeated here")
    typer.echo("\nresnest recipes show NAME prints all settings; train takes such a file, or --set a.b=c.")


def _block(title: str, figures: Mapping[str, str], known: Sequence[Recipe]) -> None:
    width = max(len(recipe.name) for recipe in known) + 2
    typer.echo(f"{title:<{width}}" + "".join(f"  {column:>7}" for column in figures))
    for recipe in known:
        cells = "".join(f"  {_figure(recipe, key):>7}" for key in figures.values())
        typer.echo(f"  {recipe.name:<{width - 2}}{cells}  {recipe.summary}")
    typer.echo("")


def _figure(recipe: Recipe, key: str) -> str:
    value = getattr(recipe.expect, key, None)
    if recipe.expect is None or value is None:
        return ""
    return f"{100 * value:.2f}{'*' if recipe.expect.published else ' '}"
