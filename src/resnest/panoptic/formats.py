"""The format of data sets with segments: COCO's panoptic json and PNG files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from resnest.data.folders import choose_parts, list_panoptic
from resnest.data.formats import DatasetHandle, Finder, Read
from resnest.errors import ResnestError
from resnest.panoptic.as_masks import all_classes
from resnest.panoptic.json_files import read_panoptic


def find_panoptic(path: Path, task: str | None = None) -> DatasetHandle | None:
    """A json, or one for each split; as masks of all classes for semantic segmentation."""
    as_masks = task == "segmentation"

    def read(name: str) -> Read:
        file = path / name if name else path
        return (lambda: all_classes(read_panoptic(file))) if as_masks else partial(read_panoptic, file)

    if path.is_file():
        return DatasetHandle("panoptic", str(path), whole=read("")) if path.suffix.lower() == ".json" else None
    parts = choose_parts(list_panoptic(path))
    for chosen in parts:
        if len(chosen) > 1:
            raise ResnestError(f"{path} has several panoptic files of one split: {', '.join(chosen)}; give one of them")
    if parts.val:
        return DatasetHandle(
            "panoptic", str(path), train=read(parts.train[0]) if parts.train else None, val=read(parts.val[0])
        )
    return DatasetHandle("panoptic", str(path), whole=read(parts.whole[0])) if parts.whole else None


FINDERS = (Finder("panoptic", ("panoptic", "segmentation"), find_panoptic, first=True),)
