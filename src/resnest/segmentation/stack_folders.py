"""Folders of images with masks for several classes at once, or with binary masks: what multi-label segmenters read.

    handle = find_class_masks(Path("eyes"))      # DatasetHandle, or None; find_stacks, find_label_masks

The folders are those of `mask_folders`, with parts or without. In turn, the first that is there:

1. A folder for each class in that of the masks: `masks/train/lesion/1.png`. A picture without a file in a class's
   folder does not show it; one without a file in any is an error when it is read, as it may not be annotated. Names may
   end differently in each folder (`1_MA.tif`).
2. A stack for each picture: `masks/train/1.npy`, or a TIFF file with a page for each class of the list.
3. One mask a picture (`binary_lists`).
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from resnest.data.folders import other_folders, part_folders
from resnest.data.formats import READERS, DatasetHandle, handle_of_folders
from resnest.data.stores import FolderStore, read_from
from resnest.errors import ResnestError
from resnest.runtime.band_files import PICTURES
from resnest.runtime.band_files import SUFFIXES as BANDS
from resnest.runtime.decode import BadImage
from resnest.segmentation.binary_lists import FOREGROUND, is_none, with_no_class
from resnest.segmentation.class_lists import ClassList, Row, find_class_list
from resnest.segmentation.data import PixelSamples, some_of
from resnest.segmentation.mask_folders import (
    LOSSY,
    MASK_SUFFIXES,
    Accept,
    Files,
    Pairs,
    files_of,
    find_folders,
    find_masks,
    list_folders,
    masks_of,
    no_images,
    note_of_alone,
    paired_stores,
)
from resnest.segmentation.mask_planes import ClassFiles, LabelPlanes, StackFiles, stored_planes, survey_planes, yes_of
from resnest.segmentation.mask_stack import class_folders
from resnest.segmentation.mask_stacks import MaskStackSamples
from resnest.segmentation.result import PixelClasses
from resnest.segmentation.survey import survey_masks

SUFFIXES = (*MASK_SUFFIXES, *BANDS)
FIRST = 3  # stacks that tell how many planes there are, if one is damaged
ENDS = "_-. "  # what parts the ending of a mask's name from its picture's

Read = Callable[[Pairs, Path], MaskStackSamples]


def find_class_masks(root: Path) -> DatasetHandle | None:
    """A folder for each class. Raises ResnestError: parts below the classes; masks beside these folders, too."""
    return _find("class_masks", root, _accept_class_folders, read_class_masks)


def find_stacks(root: Path) -> DatasetHandle | None:
    """A stack for each picture."""
    return _find("mask_stacks", root, _accept_stacks, read_stacks)


def find_label_masks(root: Path) -> DatasetHandle | None:
    """One mask a picture. Raises ResnestError as `find_masks`."""
    return _find("masks", root, None, read_label_masks)


def _find(kind: str, root: Path, accept: Accept | None, read: Read) -> DatasetHandle | None:
    folders = find_folders(root, accept) if accept else find_masks(root)
    if folders is None:
        return None
    if folders.parts is None:
        return DatasetHandle(kind, str(root), unsplit=partial(read, folders.pairs[""], root))
    return handle_of_folders(kind, root, folders.parts, lambda name: partial(read, folders.pairs[name], root))


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


# --- A folder for each class ---


def _accept_class_folders(images: Path, masks: Path, root: Path) -> Pairs | None:
    """The folders, if masks of images in them lie in folders of classes."""
    if images == masks or not images.is_dir() or not masks.is_dir():
        return None
    called = [*other_folders(masks), *part_folders(masks)]
    pictures = files_of(images, PICTURES, deep=True) if called else {}
    folders = [name for name in called if _masks_in(masks / name, pictures)]
    if not folders:
        return None
    if any(name in part_folders(images) for name in folders):
        return None  # these are parts
    if parts := [name for name in part_folders(images) if (masks / folders[0] / name).is_dir()]:
        raise ResnestError(
            f"{masks} has the parts of {images} below its classes, as {folders[0]}/{parts[0]}: put them above,"
            f" {masks / parts[0] / folders[0]}"
        )
    beside = files_of(masks, MASK_SUFFIXES, deep=False)
    if any(masks_of(stem, files, beside, pictures, alone=False) for stem, files in pictures.items()):
        raise ResnestError(
            f"{masks} has masks of the pictures in {images}, and others in folders of classes such as {folders[0]}:"
            " leave one of them"
        )
    return Pairs(images, masks)


def _masks_in(folder: Path, pictures: Files) -> dict[str, str]:
    """The masks in a class's folder, by the names of their pictures. Raises ResnestError: two of one picture; lossy."""
    files = files_of(folder, SUFFIXES, deep=True)
    if not files and (lossy := files_of(folder, LOSSY, deep=True)) and _by_picture(folder, lossy, pictures):
        raise ResnestError(f"{folder} has masks in a lossy format, such as {next(iter(lossy.values()))[0]}: save PNGs")
    return _by_picture(folder, files, pictures)


def _by_picture(folder: Path, files: Files, pictures: Files) -> dict[str, str]:
    found = _paired(folder, files, pictures)
    if not found and (ending := _ending(files, pictures)):
        found = _paired(folder, {stem.removesuffix(ending): names for stem, names in files.items()}, pictures)
    return found


def _paired(folder: Path, files: Files, pictures: Files) -> dict[str, str]:
    found = {}
    for stem, names in pictures.items():
        own = masks_of(stem, names, files, pictures, alone=False)
        if len(own) > 1:
            raise ResnestError(f"{folder}: {own[0]} and {own[1]} may both be the mask of {names[0]}: leave one of them")
        if own:
            found[stem] = own[0]
    return found


def _ending(files: Files, pictures: Files) -> str:
    """What names in a class's folder have behind those of their pictures: `_MA`."""
    for stem in files:
        for place in reversed([k for k, letter in enumerate(stem) if letter in ENDS]):
            if stem[:place] in pictures:
                return stem[place:]
    return ""


def read_class_masks(pairs: Pairs, root: Path) -> MaskStackSamples:
    """Every image of a folder, with its masks.

    Raises:
        ResnestError: no image; a folder of a class that the list lacks; masks whose values contradict each other.
    """
    images = _pictures(pairs)
    called = sorted([*other_folders(pairs.masks), *part_folders(pairs.masks)])
    found = {name: own for name in called if (own := _masks_in(pairs.masks / name, images))}
    listed = find_class_list(list_folders(pairs, root))
    classes, places, notes = _classes_of(list(found), listed, pairs.masks)
    masks = [found.get(folder, {}) for folder in places]
    keys = [
        tuple(f"{folder}/{own[stem]}" if stem in own else "" for folder, own in zip(places, masks, strict=True))
        for stem in images
    ]
    store = FolderStore(pairs.masks)
    written = [key for own in keys for key in own if key]
    files = sum(_count(pairs.masks / name) for name in called)
    survey = survey_planes(store, written, 1)
    planes = ClassFiles(store, keys, yes_of(survey, str(pairs.masks)))
    with_folder = [bool(place) and not is_none(name) for name, place in zip(classes.names, places, strict=True)]
    said = (*notes, *_missing_notes(keys, classes, with_folder), *note_of_alone(files - len(written)))
    pictures = FolderStore(pairs.images), [names[0] for names in images.values()]
    return MaskStackSamples.build(pictures, classes, planes, said)


def _count(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> int:
    return sum(map(len, files_of(folder, suffixes, deep=True).values()))


def _pictures(pairs: Pairs) -> Files:
    """The images by their names, in order. Raises ResnestError: none, or two of one name."""
    images = dict(sorted(files_of(pairs.images, PICTURES, deep=True).items()))
    if not images:
        raise no_images(pairs)
    if two := next((names for names in images.values() if len(names) > 1), None):
        raise ResnestError(
            f"{pairs.images / two[0]} and {Path(two[1]).name} have one name but for their endings: leave the one that"
            " is the picture of the masks"
        )
    return images


def _classes_of(
    folders: Sequence[str], listed: ClassList | None, masks: Path
) -> tuple[PixelClasses, list[str], tuple[str, ...]]:
    """The classes, the folder of each ("": none), and what is assumed. Raises ResnestError for an unlisted folder."""
    if listed is None:
        return PixelClasses(tuple(folders), tuple(range(len(folders)))), list(folders), ()
    classes = listed.classes
    by_folder = {name.casefold(): name for name in folders}
    places = [by_folder.pop(name.casefold(), "") for name in class_folders(classes.names)]
    for row in listed.ignored:
        by_folder.pop(class_folders([row.name])[0].casefold(), None)
    unknown = [name for name in by_folder.values() if not is_none(name)]
    if unknown:
        raise ResnestError(
            f"{masks} has the folder {unknown[0]!r}, and the list of classes has {some_of(classes.names)}: add it"
            " there, or remove the folder"
        )
    lacking = [name for name, place in zip(classes.names, places, strict=True) if not place and not is_none(name)]
    return classes, places, (f"no folder of {some_of(lacking)}: taken as absent",) if lacking else ()


def _missing_notes(
    keys: Sequence[tuple[str, ...]], classes: PixelClasses, with_folder: Sequence[bool]
) -> tuple[str, ...]:
    """Pictures that lack a file of some class."""
    missing = Counter(
        name
        for own in keys
        for name, key, expected in zip(classes.names, own, with_folder, strict=True)
        if any(own) and expected and not key
    )
    if not missing:
        return ()
    some = some_of([f"{name} {count}" for name, count in missing.most_common()])
    return (f"pictures without a file of a class do not show it: {some}",)


# --- A stack for each picture ---


def _accept_stacks(images: Path, masks: Path, root: Path) -> Pairs | None:
    if images == masks or not images.is_dir() or not masks.is_dir():
        return None
    stacks = files_of(masks, BANDS, deep=True)
    pictures = files_of(images, PICTURES, deep=True) if stacks else {}
    return Pairs(images, masks) if _paired(masks, stacks, pictures) else None


def read_stacks(pairs: Pairs, root: Path) -> MaskStackSamples:
    """Every image of a folder, with its stack of masks.

    Raises:
        ResnestError: no image; no list of the classes of several planes; values that contradict each other.
    """
    images = _pictures(pairs)
    own = _paired(pairs.masks, files_of(pairs.masks, BANDS, deep=True), images)
    suffix = Path(next(iter(own.values()))).suffix if own else BANDS[-1]
    keys, store = [own.get(stem, f"{stem}{suffix}") for stem in images], FolderStore(pairs.masks)
    classes, without, notes = _planes_of_list(
        find_class_list(list_folders(pairs, root)), store, list(own.values()), root
    )
    count = len(classes.names)
    survey = survey_planes(store, list(own.values()), count)
    planes = StackFiles(store, keys, yes_of(survey, str(pairs.masks)), count)
    alone = note_of_alone(_count(pairs.masks, BANDS) - len(own))
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
