"""`resnest recipes`: the training settings that come with the house."""

from __future__ import annotations

from typing import Annotated

import typer

from resnest.errors import ResnestError, unknown


def recipes(
    action: Annotated[str | None, typer.Argument(help="show: print one recipe as YAML.")] = None,
    name: Annotated[str | None, typer.Argument(help="Which one.")] = None,
) -> None:
    """List the recipes, or print one as YAML.

    `resnest recipes show NAME > mine.yaml` gives a file to edit and to train with.
    """
    from resnest.recipes import RECIPES, find_recipe, to_yaml

    if action is None:
        width = max(map(len, RECIPES))
        for key, recipe in RECIPES.items():
            typer.echo(f"{key:<{width}}  {recipe().summary}")
        typer.echo("\nresnest recipes show NAME prints all settings; train takes such a file, or --set a.b=c.")
    elif action != "show":
        raise unknown("action", action, ["show"])
    elif name is None:
        raise ResnestError("resnest recipes show: which one? " + ", ".join(RECIPES))
    else:
        typer.echo(to_yaml(find_recipe(name)), nl=False)
