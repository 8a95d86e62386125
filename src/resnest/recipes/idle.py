"""Settings that play no role in a task: they are not shown, and refused where they are set all the same.

idle_settings("detection")["train"]          # ("label_smoothing", "loss", ...)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resnest.recipes.schema import Recipe

SECTIONS_OF: Mapping[str, tuple[str, ...]] = {  # by task; classification has none of its own
    "detection": ("detector", "detection"),
    "panoptic": ("detector", "detection", "panoptic"),
    "segmentation": ("segmenter", "segmentation"),
}
SECTIONS = tuple(dict.fromkeys(name for names in SECTIONS_OF.values() for name in names))

# What labels places in pictures has sizes and crops in a section of its own, and learns by losses of its own.
_PLACES: Mapping[str, tuple[str, ...]] = {
    "data": (
        "size", "start_size", "eval_size", "eval_crop", "interpolation", "eval_interpolation", "min_area", "crop",
        "shift", "lighting", "augment", "rand_ops", "rand_magnitude", "erase", "reduced_decode",
    ),
    "train": ("label_smoothing", "loss", "bce_threshold", "mixup", "cutmix"),
}  # fmt: skip


def idle_settings(task: str) -> Mapping[str, tuple[str, ...]]:
    """By section, the names of settings that the task does not look at."""
    return _PLACES if task in SECTIONS_OF else {}


def set_in_vain(recipe: Recipe) -> Iterator[tuple[str, object]]:
    """Those of them that are not at their defaults: (section.field, value)."""
    for section, names in idle_settings(recipe.task).items():
        settings = getattr(recipe, section)
        defaults = {field.name: field.default for field in dataclasses.fields(settings)}
        for name in names:
            if getattr(settings, name) != defaults[name]:
                yield f"{section}.{name}", getattr(settings, name)
