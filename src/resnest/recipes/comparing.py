"""Differences of two recipes, and the settings that may change when a run is resumed.

check_resumable(before, now, where="runs/a")       # raises ResnestError unless only FREE settings differ
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from resnest.errors import ResnestError
from resnest.recipes.schema import Recipe

# Settings of execution and logging, which do not affect the results.
FREE = {
    "data.workers",
    "train.eval_batch_size",
    "train.log_every",
    "train.max_steps",
    "train.save_every",
    "train.tensorboard",
    "train.wandb",
}
FREE_SECTIONS = ("expect", "name", "summary", "trainer.")
MOST_SHOWN = 6


def check_resumable(before: Recipe, now: Recipe, *, where: str) -> None:
    """Raises ResnestError, with the changed settings, if a run cannot be resumed with this recipe."""
    found = [
        f"{key} is {old!r} there and {new!r} here"
        for key, old, new in differences(before, now)
        if key not in FREE and not key.startswith(FREE_SECTIONS)
    ]
    if found:
        more = f"; and {len(found) - MOST_SHOWN} more" if len(found) > MOST_SHOWN else ""
        raise ResnestError(
            f"{where} was started with other settings: {'; '.join(found[:MOST_SHOWN])}{more}. A run keeps its"
            " settings: leave them out, or start a new one (model.pretrained=RUN begins with its weights)"
        )


def differences(before: Recipe, now: Recipe) -> list[tuple[str, Any, Any]]:
    """Changed settings: (section.field, before, now)."""
    old, new = dict(_flat(before)), dict(_flat(now))
    return [(key, old.get(key), new.get(key)) for key in {**old, **new} if old.get(key) != new.get(key)]


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            yield from _flat(value, f"{prefix}{field.name}.")
        elif isinstance(value, dict):
            yield from ((f"{prefix}{field.name}.{key}", entry) for key, entry in value.items())
        else:
            yield f"{prefix}{field.name}", list(value) if isinstance(value, tuple) else value
