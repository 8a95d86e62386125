"""Which format a data set of masks has; `finding` asks it for the tasks that learn from masks.

    found = find_pixels(Path("camvid"), "auto", "segmentation")

First match wins:
1. folders of images and masks (`mask_folders`), with a list of classes.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from resnest.data.found import Found
from resnest.data.mask_folders import find_masks, read_masks
from resnest.errors import ResnestError

PIXEL_FORMATS = ("masks",)
PIXEL_TASKS = ("segmentation", "panoptic")


def find_pixels(path: Path, format: str, task: str | None) -> Found:
    """Raises ResnestError where nothing is of that format, or for that task."""
    if format in ("auto", "masks") and path.is_dir() and (found := _find_masks(path)):
        return found
    raise ResnestError(
        f"{path} holds no images with masks: expected folders images and masks, with files of the same names and a list"
        " of classes in classes.txt"
    )


def look_for_pixels(path: Path) -> Found | None:
    """Masks in a folder that nobody said there are."""
    return _find_masks(path)


def _find_masks(path: Path) -> Found | None:
    found = find_masks(path)
    if found is None:
        return None
    train, val, whole = (
        partial(read_masks, pairs, path) if pairs else None for pairs in (found.train, found.val, found.whole)
    )
    return Found("masks", str(path), train=train, val=val, whole=whole)
