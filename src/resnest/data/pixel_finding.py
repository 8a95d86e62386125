"""Which format a data set of masks has; `finding` asks it for the tasks that learn from masks.

    found = find_pixels(Path("camvid"), "auto", "segmentation")

First match wins:
1. a panoptic json, or a folder with such in `annotations` (panoptic_train2017.json, panoptic_val2017.json): the only
   one that has objects too; for segmentation things are classes as stuff is;
2. the folders of Cityscapes, of ADE20K, of Pascal VOC;
3. folders of images and masks (`mask_folders`), with a list of classes (`class_lists`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from resnest.data.ade20k import find_ade20k
from resnest.data.cityscapes import find_cityscapes
from resnest.data.found import Found, Read
from resnest.data.mask_folders import find_masks, read_masks
from resnest.data.panoptic_json import read_panoptic
from resnest.data.panoptic_pixels import all_classes
from resnest.data.parts import choose_parts, list_panoptic
from resnest.data.voc_masks import find_voc_masks
from resnest.errors import ResnestError

PIXEL_FORMATS = ("masks", "ade20k", "cityscapes", "panoptic")  # and voc, which may have boxes too
PIXEL_TASKS = ("segmentation", "panoptic")
EXPECTED = {
    "panoptic": "annotations/panoptic_train.json and panoptic_val.json with their PNG files, as COCO has them",
    "segmentation": (
        "folders images and masks, with files of the same names and a list of classes in classes.txt; or ADE20K,"
        " Cityscapes, Pascal VOC with SegmentationClass, COCO panoptic"
    ),
}


def find_pixels(path: Path, format: str, task: str | None) -> Found:
    """Raises ResnestError where nothing is of that format, or for that task."""
    for name, look in _ways(path, task):
        if format in ("auto", name) and (found := look()):
            return found
    told = f"of format {format!r}" if format != "auto" else "with masks"
    raise ResnestError(f"{path} holds no images {told}: expected {EXPECTED[task or 'segmentation']}")


def look_for_pixels(path: Path) -> Found | None:
    """Masks in a folder that nobody said there are."""
    return next((found for _, look in _ways(path, None) if (found := look())), None)


def _ways(path: Path, task: str | None) -> Iterator[tuple[str, Callable[[], Found | None]]]:
    yield "panoptic", partial(_find_panoptic, path, as_masks=task == "segmentation")
    if path.is_dir() and task != "panoptic":
        yield "cityscapes", partial(find_cityscapes, path)
        yield "ade20k", partial(find_ade20k, path)
        yield "voc", partial(find_voc_masks, path)
        yield "masks", partial(_find_masks, path)


def _find_panoptic(path: Path, *, as_masks: bool) -> Found | None:
    """A json, or one for each part."""

    def read(name: str) -> Read:
        file = path / name if name else path
        return (lambda: all_classes(read_panoptic(file))) if as_masks else partial(read_panoptic, file)

    if path.is_file():
        return Found("panoptic", str(path), whole=read("")) if path.suffix.lower() == ".json" else None
    parts = choose_parts(list_panoptic(path))
    for chosen in parts:
        if len(chosen) > 1:
            raise ResnestError(f"{path} has several panoptic files of one part: {', '.join(chosen)}; give one of them")
    if parts.val:
        return Found("panoptic", str(path), train=read(parts.train[0]) if parts.train else None, val=read(parts.val[0]))
    return Found("panoptic", str(path), whole=read(parts.whole[0])) if parts.whole else None


def _find_masks(path: Path) -> Found | None:
    found = find_masks(path)
    if found is None:
        return None
    train, val, whole = (
        partial(read_masks, pairs, path) if pairs else None for pairs in (found.train, found.val, found.whole)
    )
    return Found("masks", str(path), train=train, val=val, whole=whole)
