"""`resnest recipes`: the training settings that come with the house."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from resnest.errors import ResnestError, unknown

if TYPE_CHECKING:
    from resnest.recipes import Recipe


def recipes(
    action: Annotated[str | None, typer.Argument(help="show: print one recipe as YAML.")] = None,
    name: Annotated[str | None, typer.Argument(help="Which one.")] = None,
) -> None:
    """List the recipes by task, or print one as YAML.

    `resnest recipes show NAME > mine.yaml` gives a file to edit and to train with.
    """
    from resnest.recipes import RECIPES, find_recipe, to_yaml

    if action is None:
        _list([recipe() for recipe in RECIPES.values()])
    elif action != "show":
        raise unknown("action", action, ["show"])
    elif name is None:
        raise ResnestError("resnest recipes show: which one? " + ", ".join(RECIPES))
    else:
        typer.echo(to_yaml(find_recipe(name)), nl=False)


def _list(known: Sequence[Recipe]) -> None:
    """A block for each task; figures in percent, those of the authors marked."""
    by_task: dict[str, list[Recipe]] = {}
    for recipe in known:
        masks = recipe.task == "detection" and recipe.detector is not None and recipe.detector.masks
        by_task.setdefault("instances" if masks else recipe.task, []).append(recipe)
    _block("Image classification", {"top-1": "top1"}, by_task["classification"])
    _block("Object detection", {"box AP": "box_ap"}, by_task["detection"])
    _block("Instance segmentation", {"box AP": "box_ap", "mask AP": "mask_ap"}, by_task["instances"])
    _block("Semantic segmentation", {"mIoU": "miou", "pixels": "pixel_accuracy"}, by_task["segmentation"])
    _block("Panoptic segmentation", {"PQ": "pq", "box AP": "box_ap", "mask AP": "mask_ap"}, by_task["panoptic"])
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
