"""Settings that follow from the training pictures: mean, std and the range of values, where they are not given.

recipe, lines = settle_pictures(recipe, splits.train)       # lines: what to say of it
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from resnest.data.sources import Splits
from resnest.data.statistics import measure, needs_look
from resnest.recipes.schema import Recipe

PHOTOGRAPHS_ONLY = {"augment": "none", "lighting": 0.0}  # settings, and where they are off


def settle_pictures(recipe: Recipe, splits: Splits) -> tuple[Recipe, Splits, list[str]]:
    """The recipe with numbers in place of what is to be computed, and data read so; photographs are not looked at.

    Raises:
        ResnestError: none of the pictures that are looked at can be used.
    """
    data, samples = recipe.data, splits.train
    if data.mean and not needs_look(samples):
        return recipe, splits, []
    meter = measure(samples)
    found: dict[str, Any] = {}
    if data.value_range is None and meter.value_range is not None:
        found["value_range"] = meter.value_range
    full = found.get("value_range", data.value_range)
    counts = "" if full is None else f"; {full:g} counts as 1.0 (data.value_range)"
    lines = [f"pictures: {meter.describe()} in {meter.count} of {len(samples)} training pictures{counts}"]
    lines += [f"pictures: {note}" for note in meter.notes()]
    if not data.mean:
        found |= {"mean": meter.mean, "std": meter.std}
        lines.append(f"data.mean={list(meter.mean)} and data.std={list(meter.std)}: of these pictures")
    if not meter.plain and (off := list(_left_out(recipe))):
        lines.append(f"{' and '.join(off)} left out: for photographs, RGB of 8 bits")
    recipe = replace(recipe, data=replace(data, **found))
    train, val = (replace(part, bands=recipe.data.bands) for part in (samples, splits.val))
    return recipe, replace(splits, train=train, val=val), lines


def _left_out(recipe: Recipe) -> Iterator[str]:
    unused = recipe.info.unused_settings.get("data", ())
    for name, off in PHOTOGRAPHS_ONLY.items():
        if name not in unused and getattr(recipe.data, name) != off:
            yield f"data.{name}={getattr(recipe.data, name)}"
    if recipe.data.jitter:
        yield f"the saturation of data.jitter={recipe.data.jitter:g}"


def with_pictures_of(before: Recipe, recipe: Recipe) -> Recipe:
    """The recipe with what was computed when the run began, where it does not give it itself."""
    found: dict[str, Any] = {}
    if not recipe.data.mean and len(before.data.mean) == recipe.data.in_chans:
        found |= {"mean": before.data.mean, "std": before.data.std}
    if recipe.data.value_range is None:
        found["value_range"] = before.data.value_range
    return replace(recipe, data=replace(recipe.data, **found)) if found else recipe
