"""Folders of images and masks, recognised by their usual names.

    found = find_masks(Path("camvid"))                  # None where there is nothing of the kind
    read_masks(found.val, found.root)                   # PixelSamples

For each split (train; val, valid, validation or test) the first layout that exists, where `images` and `masks` stand
for any name in IMAGES and MASKS:
1. `images/val` and `masks/val`;
2. `val/images` and `val/masks`;
3. `val` and `val_masks`, `val_labels` or `valannot`;
4. `val` with images and masks in it, distinguished by a suffix such as `_mask`.
Without splits: `images` and `masks`, or both in the folder itself as in 4. Except in 4, folders may have subfolders,
the same in both. A mask has the name of its image, optionally with one of ENDINGS.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from resnest.data.folders import PART_NAMES, VAL_NAMES
from resnest.data.stores import FolderStore
from resnest.errors import ResnestError
from resnest.runtime.decode import EXACT, SUFFIXES
from resnest.segmentation.class_lists import ClassList, read_class_list
from resnest.segmentation.data import PixelSamples

IMAGES = ("images", "image", "imgs", "img", "JPEGImages")
MASKS = ("masks", "mask", "labels", "label", "annotations", "annotation", "SegmentationClass", "gt")
BESIDE = ("{}_masks", "{}_mask", "{}_labels", "{}_label", "{}annot", "{}_annotations")
ENDINGS = ("", "_mask", "_masks", "_label", "_labels", "_L", "_gt", "_seg", "_segmentation")
MASK_SUFFIXES = (".png", ".bmp", ".gif")  # of the formats in decode.EXACT
assert len(MASK_SUFFIXES) == len(EXACT)


@dataclass(frozen=True)
class Pairs:
    """Folders of images and masks, and the naming of masks."""

    images: Path
    masks: Path
    ending: str  # of a mask's stem, behind the image's


@dataclass(frozen=True)
class MaskFolders:
    """The detected folders: a validation split and optionally a training split, or the whole."""

    root: Path
    train: Pairs | None = None
    val: Pairs | None = None
    whole: Pairs | None = None


def find_masks(root: Path) -> MaskFolders | None:
    """Detect folders of masks; None if there is none. Raises ResnestError if all masks are in lossy formats."""
    val = next((pairs for name in VAL_NAMES if (pairs := _find_part(root, name))), None)
    if val:
        return MaskFolders(root, train=_find_part(root, "train"), val=val)
    whole = _find_part(root, "train") or _first(_candidates(root))
    if whole:
        return MaskFolders(root, whole=whole)
    for images, masks in (*(place for part in PART_NAMES for place in _places(root, part)), *_candidates(root)):
        if images != masks and images.is_dir() and masks.is_dir():
            _refuse_inexact(images, masks)
    return None


def read_masks(pairs: Pairs, root: Path, listed: ClassList | None = None) -> PixelSamples:
    """Every image of a folder, with its mask; without `classes`, they are read from a list in one of the folders.

    Raises:
        ResnestError: no image, no list of classes, or one that is none.
    """
    deep = pairs.images != pairs.masks
    every, masks = _stems(pairs.images, SUFFIXES, deep=deep), _stems(pairs.masks, MASK_SUFFIXES, deep=deep)
    images = every if deep else {stem: name for stem, name in every.items() if not stem.endswith(pairs.ending)}
    if not images:
        raise ResnestError(f"no images in {pairs.images} (looked for {', '.join(SUFFIXES)})")
    places = dict.fromkeys((root, pairs.masks, pairs.masks.parent, pairs.images.parent))
    keys = [images[stem] for stem in sorted(images)]
    mask_keys = [masks.get(stem + pairs.ending, f"{stem}{pairs.ending}.png") for stem in sorted(images)]
    alone = len(masks.keys() - {stem + pairs.ending for stem in images})
    notes = [f"{alone} masks without an image are left out"] if alone and deep else []
    if twice := sum(1 for _ in _files(pairs.images, SUFFIXES, deep=deep)) - len(every):
        notes.append(f"{twice} images are left out that have the name of another but for its ending")
    classes = listed or read_class_list(list(places))
    return PixelSamples.build(
        (FolderStore(pairs.images), keys), (FolderStore(pairs.masks), mask_keys), classes, tuple(notes)
    )


def _find_part(root: Path, part: str) -> Pairs | None:
    return _first(_places(root, part))


def _places(root: Path, part: str) -> list[tuple[Path, Path]]:
    """Possible folders of a split's images and masks."""
    folders = list(_candidates(root / part))
    below = [(root / images / part, root / masks / part) for images in IMAGES for masks in MASKS]
    beside = [(root / part, root / name.format(part)) for name in BESIDE]
    return [*below, *folders[:-1], *beside, folders[-1]]


def _candidates(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Subfolders, and last the folder itself."""
    yield from ((folder / images, folder / masks) for images in IMAGES for masks in MASKS)
    yield folder, folder


def _first(candidates: Iterable[tuple[Path, Path]]) -> Pairs | None:
    return next((pairs for images, masks in candidates if (pairs := _pairs(images, masks))), None)


def _pairs(images: Path, masks: Path) -> Pairs | None:
    """The naming of masks after images, if there is one, by the largest number of pairs."""
    if not images.is_dir() or not masks.is_dir():
        return None
    endings = ENDINGS[1:] if images == masks else ENDINGS
    of_masks = _stems(masks, MASK_SUFFIXES, deep=images != masks)
    of_images = _stems(images, SUFFIXES, deep=images != masks) if of_masks else {}
    counts = [sum(stem + ending in of_masks for stem in of_images) for ending in endings]
    return Pairs(images, masks, endings[counts.index(max(counts))]) if max(counts) else None


def _refuse_inexact(images: Path, masks: Path) -> None:
    """Raises ResnestError for files named as masks in a lossy format."""
    of_masks = _stems(masks, SUFFIXES, deep=True)
    of_images = _stems(images, SUFFIXES, deep=True) if of_masks else {}
    if shared := next((stem for stem in of_images if any(stem + ending in of_masks for ending in ENDINGS)), None):
        raise ResnestError(
            f"{masks} has masks for the pictures of {images}, such as that of {of_images[shared]}, in a lossy"
            f" format: make masks anew as PNG ({', '.join(MASK_SUFFIXES)} are read)"
        )


def _stems(folder: Path, suffixes: tuple[str, ...], *, deep: bool) -> dict[str, str]:
    """Files of a folder, and of its subfolders if `deep`: path without suffix -> path, both relative to it."""
    names = sorted(file.relative_to(folder) for file in _files(folder, suffixes, deep=deep))
    return {name.with_suffix("").as_posix(): name.as_posix() for name in names}


def _files(folder: Path, suffixes: tuple[str, ...], *, deep: bool) -> Iterator[Path]:
    found = folder.rglob("*") if deep else folder.iterdir()
    yield from (file for file in found if file.suffix.lower() in suffixes and not file.name.startswith("."))
