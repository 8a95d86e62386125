"""Folders with a folder of masks for each class, as multi-label segmenters read them: masks/train/lesion/1.png.

pairs = accept_class_folders(Path("eyes/images/train"), Path("eyes/masks/train"), Path("eyes"))    # Pairs, or None
samples = read_class_masks(pairs, Path("eyes"))                                                    # MaskStackSamples

A picture without a file in a class's folder does not show it; one without a file in any is an error when it is read, as
it may not be annotated. Names may end differently in each folder (`1_MA.tif`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from resnest.data.folders import other_folders, part_folders
from resnest.data.stores import FolderStore
from resnest.errors import ResnestError
from resnest.runtime.band_files import PICTURES
from resnest.runtime.band_files import SUFFIXES as BANDS
from resnest.segmentation.binary_lists import is_none
from resnest.segmentation.class_lists import ClassList, find_class_list
from resnest.segmentation.data import some_of
from resnest.segmentation.mask_folders import (
    LOSSY,
    MASK_SUFFIXES,
    Files,
    Pairs,
    files_of,
    list_folders,
    masks_of,
    no_images,
    note_of_alone,
)
from resnest.segmentation.mask_planes import ClassFiles, survey_planes, yes_of
from resnest.segmentation.mask_stack import class_folders
from resnest.segmentation.mask_stacks import MaskStackSamples
from resnest.segmentation.result import PixelClasses

SUFFIXES = (*MASK_SUFFIXES, *BANDS)
ENDS = "_-. "  # what parts the ending of a mask's name from its picture's


def accept_class_folders(images: Path, masks: Path, root: Path) -> Pairs | None:
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
    found = paired(folder, files, pictures)
    if not found and (ending := _ending(files, pictures)):
        found = paired(folder, {stem.removesuffix(ending): names for stem, names in files.items()}, pictures)
    return found


def paired(folder: Path, files: Files, pictures: Files) -> dict[str, str]:
    """The file of each picture, by its name. Raises ResnestError: two of one picture."""
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
    images = pictures_of(pairs)
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
    files = sum(count_files(pairs.masks / name) for name in called)
    survey = survey_planes(store, written, 1)
    planes = ClassFiles(store, keys, yes_of(survey, str(pairs.masks)))
    with_folder = [bool(place) and not is_none(name) for name, place in zip(classes.names, places, strict=True)]
    said = (*notes, *_missing_notes(keys, classes, with_folder), *note_of_alone(files - len(written)))
    pictures = FolderStore(pairs.images), [names[0] for names in images.values()]
    return MaskStackSamples.build(pictures, classes, planes, said)


def count_files(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> int:
    """Masks in a folder and below."""
    return sum(map(len, files_of(folder, suffixes, deep=True).values()))


def pictures_of(pairs: Pairs) -> Files:
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
