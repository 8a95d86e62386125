"""Folders of images with masks for several classes at once, or with binary masks: what multi-label segmenters read.

    handle = find_class_masks(Path("eyes"))      # DatasetHandle, or None; find_stacks, find_label_masks

The folders are those of `mask_folders`, with parts or without. In turn, the first that is there:

1. A folder for each class in that of the masks: `masks/train/lesion/1.png` (`class_mask_folders`).
2. A stack for each picture: `masks/train/1.npy`, or a TIFF file with a page for each class of the list.
3. One mask a picture (`binary_lists`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from resnest.data.formats import READERS, DatasetHandle, handle_of_folders
from resnest.data.stores import FolderStore, read_from
from resnest.errors import ResnestError
from resnest.runtime.band_files import PICTURES
from resnest.runtime.band_files import SUFFIXES as BANDS
from resnest.runtime.decode import BadImage
from resnest.segmentation.binary_lists import FOREGROUND, is_none, with_no_class
from resnest.segmentation.class_lists import ClassList, Row, find_class_list
from resnest.segmentation.class_mask_folders import (
    accept_class_folders,
    count_files,
    paired,
    pictures_of,
    read_class_masks,
)
from resnest.segmentation.data import PixelSamples, some_of
from resnest.segmentation.mask_folders import (
    Accept,
    Pairs,
    files_of,
    find_folders,
    find_masks,
    list_folders,
    note_of_alone,
    paired_stores,
)
from resnest.segmentation.mask_planes import LabelPlanes, StackFiles, stored_planes, survey_planes, yes_of
from resnest.segmentation.mask_stacks import MaskStackSamples
from resnest.segmentation.result import PixelClasses
from resnest.segmentation.survey import survey_masks

FIRST = 3  # stacks that tell how many planes there are, if one is damaged

Read = Callable[[Pairs, Path], MaskStackSamples]


def find_class_masks(root: Path) -> DatasetHandle | None:
    """A folder for each class. Raises ResnestError: parts below the classes; masks beside these folders, too."""
    return _find(root, accept_class_folders, read_class_masks)


def find_stacks(root: Path) -> DatasetHandle | None:
    """A stack for each picture."""
    return _find(root, _accept_stacks, read_stacks)


def find_label_masks(root: Path) -> DatasetHandle | None:
    """One mask a picture. Raises ResnestError as `find_masks`."""
    return _find(root, None, read_label_masks)


def _find(root: Path, accept: Accept | None, read: Read) -> DatasetHandle | None:
    folders = find_folders(root, accept) if accept else find_masks(root)
    if folders is None:
        return None
    if folders.parts is None:
        return DatasetHandle("masks", str(root), unsplit=partial(read, folders.pairs[""], root))
    return handle_of_folders("masks", root, folders.parts, lambda name: partial(read, folders.pairs[name], root))


def stacked(handle: DatasetHandle | None) -> DatasetHandle | None:
    """Data with one mask a picture, read as masks of each class."""

    def reads(read: Callable[[], Any]) -> Callable[[], MaskStackSamples]:
        return lambda: of_label_maps(read())

    if handle is None:
        return None
    parts: dict[str, Any] = {part: reads(read) for part in READERS if (read := getattr(handle, part))}
    return replace(handle, **parts)


# --- One mask a picture ---


def read_label_masks(pairs: Pairs, root: Path) -> MaskStackSamples:
    """Every image of a folder, with its mask. Raises ResnestError as `read_masks`; no list, and many values."""
    images, masks, notes = paired_stores(pairs)
    given = find_class_list(list_folders(pairs, root))
    survey = survey_masks(*masks, given.meaning if given else None)
    listed, said = with_no_class(given, survey, root)
    return of_label_maps(PixelSamples.build(images, masks, listed, (*said, *notes), survey))


def of_label_maps(samples: PixelSamples) -> MaskStackSamples:
    images = samples.store, samples.keys
    return MaskStackSamples.build(images, samples.classes, LabelPlanes(samples), samples.notes)


# --- A stack for each picture ---


def _accept_stacks(images: Path, masks: Path, root: Path) -> Pairs | None:
    if images == masks or not images.is_dir() or not masks.is_dir():
        return None
    stacks = files_of(masks, BANDS, deep=True)
    pictures = files_of(images, PICTURES, deep=True) if stacks else {}
    return Pairs(images, masks) if paired(masks, stacks, pictures) else None


def read_stacks(pairs: Pairs, root: Path) -> MaskStackSamples:
    """Every image of a folder, with its stack of masks.

    Raises:
        ResnestError: no image; no list of the classes of several planes; values that contradict each other.
    """
    images = pictures_of(pairs)
    own = paired(pairs.masks, files_of(pairs.masks, BANDS, deep=True), images)
    suffix = Path(next(iter(own.values()))).suffix if own else BANDS[-1]
    keys, store = [own.get(stem, f"{stem}{suffix}") for stem in images], FolderStore(pairs.masks)
    classes, without, notes = _planes_of_list(
        find_class_list(list_folders(pairs, root)), store, list(own.values()), root
    )
    count = len(classes.names)
    survey = survey_planes(store, list(own.values()), count)
    planes = StackFiles(store, keys, yes_of(survey, str(pairs.masks)), count)
    alone = note_of_alone(count_files(pairs.masks, BANDS) - len(own))
    pictures = FolderStore(pairs.images), [names[0] for names in images.values()]
    return MaskStackSamples.build(pictures, classes, planes, (*notes, *alone), without)


def _planes_of_list(
    listed: ClassList | None, store: FolderStore, keys: Sequence[str], root: Path
) -> tuple[PixelClasses, list[str], tuple[str, ...]]:
    """The class of each plane, by the values of the list, those that do not count, and what is assumed.

    Background and what does not count have planes only if the first stacks have so many.

    Raises:
        ResnestError: several planes, and no list.
    """
    if listed is None:
        if _has(store, keys, 1):
            return PixelClasses((FOREGROUND,), (1,)), [], (f"no list of classes: one class, {FOREGROUND!r}",)
        raise ResnestError(
            f"{root} has stacks of masks and no list of their classes: write classes.txt there, with a name a line in"
            " the order of the planes"
        )
    rows = sorted(listed.every, key=lambda row: row.value)
    others = [row for row in rows if not is_none(row.name) and not row.ignore]
    chosen = rows if _has(store, keys, len(rows)) or not _has(store, keys, len(others)) else others
    left_out = [row.name for row in chosen if row.ignore]
    notes = (f"planes of what does not count are left out: {some_of(left_out)}",) if left_out else ()
    return _of_rows(chosen), left_out, notes


def _has(store: FolderStore, keys: Sequence[str], count: int) -> bool:
    """Whether one of the first stacks has so many planes."""
    for key in keys[:FIRST]:
        with contextlib.suppress(BadImage):
            return bool(stored_planes(read_from(store, key), count, key))
    return False


def _of_rows(rows: Sequence[Row]) -> PixelClasses:
    colours = tuple(row.colour for row in rows if row.colour is not None)
    names = tuple(row.name for row in rows)
    return PixelClasses(names, tuple(row.value for row in rows), colours if len(colours) == len(rows) else ())
