"""COCO json under any name: beside the folders of pictures, or in them, as annotation tools write it.

handle = find_plain_coco(Path("cells"))       # cells/train.json, cells/val.json; export/result.json; train/labels.json
"""

from __future__ import annotations

from pathlib import Path

from resnest.data.folders import PANOPTIC
from resnest.data.formats import DatasetHandle
from resnest.detection.coco import read_coco
from resnest.detection.formats.finding import by_part_files, of_files
from resnest.detection.formats.marks import json_of_kind, kind_of

OTHERS = (PANOPTIC, "captions", "person_keypoints", "image_info", "stuff")  # COCO's files that have no objects


def find_plain_coco(path: Path, task: str | None = None) -> DatasetHandle | None:
    """json files in the folder, else one in each folder named by part, or in `annotations` in it."""
    if path.is_file():
        return None
    if files := _in(path):
        return of_files("coco", path, [file.name for file in files], read_coco)
    return by_part_files("coco", path, lambda folder: _in(folder) or _in(folder / "annotations"), read_coco)


def _in(folder: Path) -> list[Path]:
    """The files with objects; those called instances_*, if there are some."""
    found = [file for file in json_of_kind(folder, "coco") if not file.name.startswith(OTHERS)]
    return [file for file in found if file.name.startswith("instances")] or found


def is_coco(path: Path) -> bool:
    """Whether a json file is to be read as COCO's: it is, or nothing is known about it."""
    return kind_of(path) in ("coco", "")
