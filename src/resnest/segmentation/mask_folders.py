"""Folders of images and masks, recognised by their usual names, and which mask belongs to which image.

    folders = find_masks(Path("streets"))                          # MaskFolders, or None
    samples = read_masks(folders.pairs["val"], Path("streets"))    # PixelSamples

For each part, such as `val`, `Valid` or `seg_val` (`data.parts`), the first layout that exists, where `images` and
`masks` stand for any name in IMAGES and MASKS:

1. `images/val` and `masks/val`;
2. `val/images` and `val/masks`;
3. `val` and `val_masks`, `val_labels` or `valannot`; `val_images` and `val_masks`;
4. `val` with images and masks in it, distinguished by a suffix such as `_mask`; or, beside a list of classes, photos
   in JPEG or WebP and masks of the same names in PNG.

Without splits: the same with `default`, as Datumaro and CVAT call the whole; `images` and `masks`; or both in the
folder itself as in 4. Except in 4, folders may have subfolders, the same in both. A mask has the name of its image,
optionally with one of ENDINGS, or with the image's own suffix before its own (`1.jpg.png`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from resnest.data.folders import other_folders, part_folders, without_copies
from resnest.data.listing import files_below
from resnest.data.parts import WHOLE, Parts, choose_folders
from resnest.data.stores import FolderStore
from resnest.errors import ResnestError
from resnest.figures import counted
from resnest.runtime.band_files import PICTURES as SUFFIXES
from resnest.runtime.band_files import SUFFIXES as BANDS
from resnest.runtime.decode import EXACT
from resnest.segmentation.class_lists import ClassList, find_class_list, read_class_list
from resnest.segmentation.data import PixelSamples

IMAGES = ("images", "image", "imgs", "img", "JPEGImages", "data", "image_2")  # the last: FiftyOne, KITTI
MASKS = ("masks", "mask", "labels", "label", "annotations", "annotation", "SegmentationClass", "gt", "semantic")
BESIDE = ("{}_masks", "{}_mask", "{}_labels", "{}_label", "{}annot", "{}_annotations")
ENDINGS = ("", "_mask", "_masks", "_label", "_labels", "_L", "_gt", "_seg", "_segmentation")
SAME_SUFFIXES = (".png", ".bmp", ".gif")  # of masks beside photos of their names: the formats in decode.EXACT
assert len(SAME_SUFFIXES) == len(EXACT)
MASK_SUFFIXES = (*SAME_SUFFIXES, ".tif", ".tiff")
PHOTO_SUFFIXES = tuple(suffix for suffix in SUFFIXES if suffix not in SAME_SUFFIXES)
LOSSY = tuple(suffix for suffix in PHOTO_SUFFIXES if suffix not in BANDS)
UNREAD = (".npy", ".mat", ".jp2")  # what masks are kept in elsewhere
UNREAD_PICTURES = (".mat", ".jp2")

Files = dict[str, list[str]]  # path without suffix -> paths, relative to a folder


@dataclass(frozen=True)
class Pairs:
    """Folders of images and masks."""

    images: Path
    masks: Path
    same: bool = False  # masks beside photos of the same names, in one folder
    image_ending: str = ""  # what the names of images have behind those of their masks


Accept = Callable[[Path, Path, Path], Pairs | None]  # folder of images, folder of masks, root


@dataclass(frozen=True)
class MaskFolders:
    """The detected folders: those of parts, by the parts' names, or the whole by ""."""

    parts: Parts | None
    pairs: Mapping[str, Pairs]


def find_masks(root: Path) -> MaskFolders | None:
    """Detect folders of masks; None if there is none.

    Raises:
        ResnestError: two folders for one part; all masks are in formats that are not read.
    """
    if found := find_folders(root, accept_masks):
        return found
    spelled = Spelling()
    called = dict.fromkeys(name for home in _homes(root, spelled) for name in part_folders(home))
    of_names = (pair for name in called for pair in _split_folders(root, name, spelled))
    for images, masks in (*of_names, *_candidates(root, spelled)):
        if images != masks and images.is_dir() and masks.is_dir():
            _refuse_unread(images, masks)
    return None


def find_folders(root: Path, accept: Accept) -> MaskFolders | None:
    """Detect folders of images and masks that are accepted. Raises ResnestError: two folders for one part."""
    spelled = Spelling()
    homes = _homes(root, spelled)

    def pairs_of(list_names: Callable[[Path], list[str]]) -> dict[str, Pairs]:
        names = {name.lower(): name for home in homes for name in list_names(home)}
        for usual in (*IMAGES, *MASKS):
            names.pop(usual.lower(), None)
        found = {name: _first(_split_folders(root, name, spelled), root, accept) for name in names.values()}
        return {name: pairs for name, pairs in found.items() if pairs}

    if of_parts := pairs_of(part_folders):
        every = {**of_parts, **pairs_of(other_folders)}
        if parts := choose_folders(every, str(root)):
            return MaskFolders(parts, every)
    whole = (_split_folders(root, WHOLE, spelled), _candidates(root, spelled))
    unsplit = next(filter(None, (_first(candidates, root, accept) for candidates in whole)), None)
    return MaskFolders(None, {"": unsplit}) if unsplit else None


def _homes(root: Path, spelled: Spelling) -> tuple[Path, ...]:
    """Where folders of parts may be."""
    return (root, *(home for name in IMAGES if (home := spelled(root, name)).is_dir()))


def read_masks(pairs: Pairs, root: Path, listed: ClassList | None = None) -> PixelSamples:
    """Every image of a folder, with its mask; without `listed`, classes are read from a list in one of the folders.

    Raises:
        ResnestError: no image, no list of classes, or one that is none; two files for one image or mask.
    """
    images, masks, notes = paired_stores(pairs)
    classes = listed or read_class_list(list_folders(pairs, root))
    return PixelSamples.build(images, masks, classes, notes)


Keyed = tuple[FolderStore, list[str]]


def paired_stores(pairs: Pairs) -> tuple[Keyed, Keyed, tuple[str, ...]]:
    """The images and their masks, and what is left out. Raises ResnestError: no image; two files for one of these."""
    found = pair_files(pairs)
    if not found:
        raise no_images(pairs)
    notes: tuple[str, ...] = ()
    if pairs.images != pairs.masks:
        masks = files_of(pairs.masks, MASK_SUFFIXES, deep=True)
        alone = sum(map(len, masks.values())) - sum(mask.exists for _, mask in found)
        notes = note_of_alone(alone)
    keys, mask_keys = [image for image, _ in found], [mask.key for _, mask in found]
    return (FolderStore(pairs.images), keys), (FolderStore(pairs.masks), mask_keys), notes


def no_images(pairs: Pairs) -> ResnestError:
    return ResnestError(f"no images in {pairs.images} (looked for {', '.join(SUFFIXES)})")


def note_of_alone(alone: int) -> tuple[str, ...]:
    return (f"left out: {counted(alone, 'mask', 'masks')} without an image",) if alone else ()


def list_folders(pairs: Pairs, root: Path) -> list[Path]:
    """Where the list of their classes may be."""
    return list(dict.fromkeys((root, pairs.masks, pairs.masks.parent, pairs.images.parent)))


# --- Which mask belongs to which image ---


@dataclass(frozen=True)
class Mask:
    """The mask of an image, or the name that it would have."""

    key: str
    exists: bool


def pair_files(pairs: Pairs, stems: Sequence[str] | None = None) -> list[tuple[str, Mask]]:
    """The images of a folder, or those with some stems, in order, each with its mask.

    An image that is missing keeps its place, as a file that cannot be read.

    Raises:
        ResnestError: two images of one mask, or two masks of one image.
    """
    deep, alone = pairs.images != pairs.masks, pairs.images == pairs.masks and not pairs.same
    images = files_of(pairs.images, PHOTO_SUFFIXES if pairs.same else SUFFIXES, deep=deep)
    images = {stem.removesuffix(pairs.image_ending): files for stem, files in images.items()}
    masks = files_of(pairs.masks, SAME_SUFFIXES if pairs.same else MASK_SUFFIXES, deep=deep)
    if alone:  # what is a mask of another file is no image
        owned = {name for stem, files in images.items() for name in masks_of(stem, files, masks, images, alone=True)}
        images = {
            stem: left for stem, files in images.items() if (left := [name for name in files if name not in owned])
        }
    usual = _usual_ending(images, masks)
    found = []
    for stem in sorted(images) if stems is None else stems:
        files = images.get(stem, [f"{stem}.jpg"])
        of_it = masks_of(stem, files, masks, images, alone=alone)
        if len(files) > 1:
            raise ResnestError(
                f"{_both(pairs.images, files)} have one name but for their endings: leave the one that is the picture"
                + (f" of the mask {pairs.masks / of_it[0]}" if of_it else "")
            )
        if len(of_it) > 1:
            raise ResnestError(f"{_both(pairs.masks, of_it)} may both be the mask of {files[0]}: leave the right one")
        found.append((files[0], Mask(of_it[0], True) if of_it else Mask(f"{stem}{usual}.png", False)))
    return found


def masks_of(stem: str, files: Sequence[str], masks: Files, images: Files, *, alone: bool) -> list[str]:
    """The masks that an image's name leads to, but for those that have the name of another image."""
    endings = ENDINGS[1:] if alone else ENDINGS
    names = [stem, *(stem + ending for ending in endings if ending and (alone or stem + ending not in images))]
    names = [name for name in (*names, *files) if not (alone and name == stem)]
    return [mask for name in dict.fromkeys(names) for mask in masks.get(name, [])]


def _usual_ending(images: Files, masks: Files) -> str:
    """The ending of most masks."""
    counts = [sum(stem + ending in masks for stem in images) for ending in ENDINGS]
    return ENDINGS[counts.index(max(counts))]


def _both(folder: Path, names: Sequence[str]) -> str:
    return f"{folder / names[0]} and {Path(names[1]).name}"


def files_of(folder: Path, suffixes: tuple[str, ...], *, deep: bool) -> Files:
    """Files of a folder, and of its subfolders if `deep`."""
    files: Files = {}
    paths = files_below(folder) if deep else folder.iterdir()
    for name in sorted(path.relative_to(folder) for path in paths if path.suffix.lower() in suffixes):
        if not name.name.startswith("."):
            files.setdefault(name.with_suffix("").as_posix(), []).append(name.as_posix())
    return without_copies(files)


# --- The folders ---


class Spelling:
    """Folders by their names in any case; each folder is looked through once."""

    def __init__(self) -> None:
        self._found: dict[Path, dict[str, str]] = {}

    def __call__(self, folder: Path, name: str) -> Path:
        """The folder of this name, or else the one that differs in its case."""
        if folder not in self._found:
            names = sorted(child.name for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []
            self._found[folder] = {**{known.lower(): known for known in names}, **{known: known for known in names}}
        known = self._found[folder]
        return folder / known.get(name, known.get(name.lower(), name))


def _split_folders(root: Path, part: str, spelled: Spelling) -> list[tuple[Path, Path]]:
    """Possible folders of a split's images and masks."""
    own = spelled(root, part)
    folders = list(_candidates(own, spelled))
    below = [
        (spelled(spelled(root, images), part), spelled(spelled(root, masks), part))
        for images in IMAGES
        for masks in MASKS
    ]
    beside = [(own, spelled(root, name.format(part))) for name in BESIDE]
    called = next((name for name in IMAGES if name.lower() in part.lower()), "")
    beside += [(own, spelled(root, part.lower().replace(called.lower(), name.lower()))) for name in MASKS if called]
    return [*below, *folders[:-1], *beside, folders[-1]]


def _candidates(folder: Path, spelled: Spelling) -> Iterator[tuple[Path, Path]]:
    """Subfolders, and last the folder itself."""
    yield from ((spelled(folder, images), spelled(folder, masks)) for images in IMAGES for masks in MASKS)
    yield folder, folder


def _first(candidates: Iterable[tuple[Path, Path]], root: Path, accept: Accept) -> Pairs | None:
    """The first candidate. Raises ResnestError if a second folder has masks of the same images."""
    found: Pairs | None = None
    for images, masks in candidates:
        if found is None:
            found = accept(images, masks, root)
        elif found.images == images != masks != found.masks != images and accept(images, masks, root):
            raise ResnestError(
                f"{found.masks} and {masks} both have masks of the pictures in {images}: leave one of them"
            )
    return found


def accept_masks(images: Path, masks: Path, root: Path) -> Pairs | None:
    """The folders, if an image in them has a mask."""
    if not images.is_dir() or not masks.is_dir():
        return None
    alone = images == masks
    of_masks = files_of(masks, MASK_SUFFIXES, deep=not alone)
    of_images = files_of(images, SUFFIXES, deep=not alone) if of_masks else {}
    if any(masks_of(stem, files, of_masks, of_images, alone=alone) for stem, files in of_images.items()):
        return Pairs(images, masks)
    photos = files_of(images, PHOTO_SUFFIXES, deep=False) if alone and of_masks else {}
    same = files_of(images, SAME_SUFFIXES, deep=False) if photos else {}
    if photos.keys() & same.keys() and find_class_list([root, images]):
        return Pairs(images, masks, same=True)
    return None


def _refuse_unread(images: Path, masks: Path) -> None:
    """Raises ResnestError for files named as masks, or as images of masks, in a format that is not read."""
    for suffixes, what in ((LOSSY, "in a lossy format"), (UNREAD, "in a format that is not read")):
        of_masks = files_of(masks, suffixes, deep=True)
        of_images = files_of(images, (*SUFFIXES, *UNREAD_PICTURES), deep=True) if of_masks else {}
        for stem, files in of_images.items():
            if found := masks_of(stem, files, of_masks, of_images, alone=False):
                raise ResnestError(
                    f"{masks} has masks for the pictures of {images}, such as {found[0]} for {files[0]}, {what}:"
                    f" make masks anew as PNG ({', '.join(MASK_SUFFIXES)} are read)"
                )
    of_images = files_of(images, UNREAD_PICTURES, deep=True)
    of_masks = files_of(masks, MASK_SUFFIXES, deep=True) if of_images else {}
    for stem, files in of_images.items():
        if found := masks_of(stem, files, of_masks, of_images, alone=False):
            raise ResnestError(
                f"{images} has the pictures of {masks} in a format that is not read, such as {files[0]} for"
                f" {found[0]}: save them as PNG ({', '.join(SUFFIXES)} are read)"
            )
