"""The formats of data sets with masks: Cityscapes, ADE20K, Pascal VOC, and folders of images and masks.

First match wins, in the order of FINDERS. Folders of any other names are looked through by `mask_folders`, and their
list of classes by `class_lists`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from resnest.data.formats import DatasetHandle, Finder
from resnest.segmentation.ade20k import find_ade20k
from resnest.segmentation.cityscapes import find_cityscapes
from resnest.segmentation.mask_folders import find_masks, read_masks
from resnest.segmentation.voc_masks import find_voc_masks


def find_mask_folders(path: Path) -> DatasetHandle | None:
    found = find_masks(path)
    if found is None:
        return None
    train, val, whole = (
        partial(read_masks, pairs, path) if pairs else None for pairs in (found.train, found.val, found.whole)
    )
    return DatasetHandle("masks", str(path), train=train, val=val, whole=whole)


FINDERS = tuple(
    Finder(name, ("segmentation",), lambda path, task, find=find: find(path) if path.is_dir() else None)  # type: ignore[misc]
    for name, find in (
        ("cityscapes", find_cityscapes),
        ("ade20k", find_ade20k),
        ("voc", find_voc_masks),
        ("masks", find_mask_folders),
    )
)
