"""The formats of data sets with objects: COCO json and Pascal VOC xml."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from resnest.data.folders import PART_NAMES, choose_parts, holds_xml, list_coco
from resnest.data.formats import DatasetHandle, Finder, Read
from resnest.detection.coco import read_coco
from resnest.detection.voc import read_list, read_voc
from resnest.errors import ResnestError

VOC_FOLDERS = ("Annotations", "annotations", ".")


def find_coco(path: Path, task: str | None = None) -> DatasetHandle | None:
    """A .json file, or one per split: in `annotations`, or in folders named by split."""
    if path.is_file():
        return DatasetHandle("coco", str(path), whole=partial(read_coco, path))
    names = list_coco(path)
    parts = choose_parts(names)
    for chosen in parts:
        if len(chosen) > 1:
            raise ResnestError(
                f"{path} has several annotation files of one split: {', '.join(chosen)}; give one .json file, or leave"
                " one training and one validation file there"
            )
    if parts.val:
        train = partial(read_coco, path / parts.train[0]) if parts.train else None
        return DatasetHandle("coco", str(path), train=train, val=partial(read_coco, path / parts.val[0]))
    return DatasetHandle("coco", str(path), whole=partial(read_coco, path / parts.whole[0])) if parts.whole else None


def find_voc(path: Path, task: str | None = None) -> DatasetHandle | None:
    """xml files in `Annotations`, with splits listed in ImageSets/Main, or beside images, optionally by split."""
    if path.is_file():
        return None
    folder = next((place for name in VOC_FOLDERS if holds_xml(place := path / name)), None)
    if folder is None:
        parts = choose_parts([name for name in PART_NAMES if holds_xml(path / name)])
        if not parts.val:
            return None
        train = partial(read_voc, path / parts.train[0]) if parts.train else None
        return DatasetHandle("voc", str(path), train=train, val=partial(read_voc, path / parts.val[0]))

    def part(*names: str) -> Read | None:
        lists = [path / "ImageSets" / "Main" / f"{name}.txt" for name in names]
        found = next((place for place in lists if place.is_file()), None)
        return (lambda: read_voc(folder, read_list(found))) if found else None

    if val := part("val"):
        return DatasetHandle("voc", str(path), train=part("train"), val=val)
    if val := part("test"):
        return DatasetHandle("voc", str(path), train=part("trainval", "train"), val=val)
    return DatasetHandle("voc", str(path), whole=part("trainval", "train") or partial(read_voc, folder))


FINDERS = (Finder("coco", ("detection",), find_coco, suffix=".json"), Finder("voc", ("detection",), find_voc))
