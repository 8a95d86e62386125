"""Data sets with masks: folders of images and masks, ADE20K, Cityscapes, Pascal VOC and what lies in its folders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from resnest.data.folders import stems_in
from resnest.data.formats import DatasetHandle, Read
from resnest.data.parts import SPLIT_NAMES, VAL_NAMES
from resnest.data.stores import FolderStore
from resnest.detection.voc import read_list
from resnest.errors import ResnestError
from resnest.runtime.decode import EXACT, SUFFIXES
from resnest.runtime.palette import Colour
from resnest.segmentation.card import IGNORED
from resnest.segmentation.class_lists import ClassList, Row, find_class_list, read_class_list
from resnest.segmentation.data import PixelSamples

# --- Folders of images and masks, recognised by their usual names ---
# For each split (train; val, valid, validation or test) the first layout that exists, where `images` and `masks` stand
# for any name in IMAGES and MASKS:
# 1. `images/val` and `masks/val`;
# 2. `val/images` and `val/masks`;
# 3. `val` and `val_masks`, `val_labels` or `valannot`;
# 4. `val` with images and masks in it, distinguished by a suffix such as `_mask`.
# Without splits: `images` and `masks`, or both in the folder itself as in 4. Except in 4, folders may have subfolders,
# the same in both. A mask has the name of its image, optionally with one of ENDINGS.

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
    unsplit: Pairs | None = None


def find_masks(root: Path) -> MaskFolders | None:
    """Detect folders of masks; None if there is none. Raises ResnestError if all masks are in lossy formats."""
    val = next((pairs for name in VAL_NAMES if (pairs := _find_part(root, name))), None)
    if val:
        return MaskFolders(root, train=_find_part(root, "train"), val=val)
    unsplit = _find_part(root, "train") or _first(_candidates(root))
    if unsplit:
        return MaskFolders(root, unsplit=unsplit)
    for images, masks in (*(pair for part in SPLIT_NAMES for pair in _split_folders(root, part)), *_candidates(root)):
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
    folders = dict.fromkeys((root, pairs.masks, pairs.masks.parent, pairs.images.parent))
    keys = [images[stem] for stem in sorted(images)]
    mask_keys = [masks.get(stem + pairs.ending, f"{stem}{pairs.ending}.png") for stem in sorted(images)]
    alone = len(masks.keys() - {stem + pairs.ending for stem in images})
    notes = [f"{alone} masks without an image are left out"] if alone and deep else []
    if twice := sum(1 for _ in _files(pairs.images, SUFFIXES, deep=deep)) - len(every):
        notes.append(f"{twice} images are left out that have the name of another but for its ending")
    classes = listed or read_class_list(list(folders))
    return PixelSamples.build(
        (FolderStore(pairs.images), keys), (FolderStore(pairs.masks), mask_keys), classes, tuple(notes)
    )


def _find_part(root: Path, part: str) -> Pairs | None:
    return _first(_split_folders(root, part))


def _split_folders(root: Path, part: str) -> list[tuple[Path, Path]]:
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
    paths = folder.rglob("*") if deep else folder.iterdir()
    yield from (file for file in paths if file.suffix.lower() in suffixes and not file.name.startswith("."))


# --- ADE20K in the layout of the scene parsing challenge (Zhou et al., CVPR 2017; ADEChallengeData2016) ---
# Images and masks are in images/training, annotations/training, and the same with validation. A mask's value 0 is
# ignored, value k is class k - 1. Names are the first ones in objectInfo150.txt.

INFO = "objectInfo150.txt"
ADE20K_NAMES = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet", "sidewalk",
    "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water", "painting", "sofa",
    "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp",
    "bathtub", "railing", "cushion", "base", "box", "column", "signboard", "chest of drawers", "counter", "sand",
    "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path", "stairs", "runway", "case", "pool table",
    "pillow", "screen door", "stairway", "river", "bridge", "bookcase", "blind", "coffee table", "toilet", "flower",
    "book", "hill", "bench", "countertop", "stove", "palm", "kitchen island", "computer", "swivel chair", "boat", "bar",
    "arcade machine", "hovel", "bus", "towel", "light", "truck", "tower", "chandelier", "awning", "streetlight",
    "booth", "television receiver", "airplane", "dirt track", "apparel", "pole", "land", "bannister", "escalator",
    "ottoman", "bottle", "buffet", "poster", "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer",
    "plaything", "swimming pool", "stool", "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven",
    "ball", "food", "step", "tank", "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher",
    "screen", "blanket", "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier",
    "crt screen", "plate", "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag",
)  # fmt: skip


def find_ade20k(root: Path) -> DatasetHandle | None:
    """None without such folders. Raises ResnestError for an invalid list of names."""
    train, val = (Pairs(root / "images" / part, root / "annotations" / part, "") for part in ("training", "validation"))
    if not (val.images.is_dir() and val.masks.is_dir()):
        return None
    listed = read_names(root / INFO) if (root / INFO).is_file() else ade20k_classes(ADE20K_NAMES)
    with_train = train.images.is_dir() and train.masks.is_dir()
    return DatasetHandle(
        "ade20k",
        str(root),
        train=partial(read_masks, train, root, listed) if with_train else None,
        val=partial(read_masks, val, root, listed),
    )


def read_names(path: Path) -> ClassList:
    """A table with columns Idx and Name, between tabs. Raises ResnestError."""
    try:
        head, *lines = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
        number, name = head.index("Idx"), head.index("Name")
        rows = [(int(line[number]), line[name].split(",")[0].strip()) for line in lines]
    except (OSError, ValueError, IndexError) as error:
        raise ResnestError(f"{path} is no table with the columns Idx and Name ({error})") from None
    return ade20k_classes([class_name for _, class_name in sorted(rows)], path)


def ade20k_classes(names: tuple[str, ...] | list[str], where: str | Path = "ADE20K") -> ClassList:
    """Class list for values from 1; 0 is ignored."""
    rows = [Row(value, name) for value, name in enumerate(names, 1)]
    return ClassList.from_rows([Row(0, "value 0", ignore=True), *rows], where)


# --- Cityscapes: street scenes of 2048 x 1024 pixels, 19 evaluated classes (Cordts et al., CVPR 2016) ---
# Images are leftImg8bit/PART/CITY/*_leftImg8bit.png, masks gtFine/PART/CITY/*_gtFine_labelIds.png, or those with
# labelTrainIds if these are missing.

IMAGE, IDS, TRAIN_IDS = "_leftImg8bit.png", "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"
NUMBER = 34  # of label ids, from 0; a mask has no licence plates, whose id is -1

# What counts, by train id: label id, name, colour (cityscapesScripts, helpers/labels.py)
CLASSES: tuple[tuple[int, str, Colour], ...] = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)


def find_cityscapes(root: Path) -> DatasetHandle | None:
    """None without such folders."""
    images, masks = root / "leftImg8bit", root / "gtFine"
    if not (images / "val").is_dir() or not (masks / "val").is_dir():
        return None
    with_train = (images / "train").is_dir()
    return DatasetHandle(
        "cityscapes",
        str(root),
        train=partial(read_cityscapes, root, "train") if with_train else None,
        val=partial(read_cityscapes, root, "val"),
    )


def read_cityscapes(root: Path, part: str) -> PixelSamples:
    """One split, city by city. Raises ResnestError if it has no image."""
    images, masks = root / "leftImg8bit" / part, root / "gtFine" / part
    keys = sorted(path.relative_to(images).as_posix() for path in images.glob(f"*/*{IMAGE}"))
    if not keys:
        raise ResnestError(f"no images in {images} (looked for CITY/*{IMAGE})")
    stems = [key.removesuffix(IMAGE) for key in keys]
    trained = not any((masks / f"{stem}{IDS}").is_file() for stem in stems)
    trained = trained and any((masks / f"{stem}{TRAIN_IDS}").is_file() for stem in stems)
    mask_keys = [stem + (TRAIN_IDS if trained else IDS) for stem in stems]
    listed = cityscapes_classes(trained=trained)
    return PixelSamples.build((FolderStore(images), keys), (FolderStore(masks), mask_keys), listed)


def cityscapes_classes(*, trained: bool) -> ClassList:
    """Classes by the values of masks: train ids, or label ids, of which most are ignored."""
    rows = [Row(train_id if trained else key, name, colour) for train_id, (key, name, colour) in enumerate(CLASSES)]
    others = [] if trained else sorted(set(range(NUMBER)) - {key for key, _, _ in CLASSES})
    return ClassList.from_rows([*rows, *(Row(key, f"label id {key}", ignore=True) for key in others)], "Cityscapes")


# --- Pascal VOC's masks, and data in the same folders (host.robots.ox.ac.uk/pascal/VOC, devkit of 2012, section 3).
# Images are in JPEGImages, masks in SegmentationClass as PNG, the names of each part in
# ImageSets/Segmentation/train.txt and val.txt. A list of classes in the folder (`class_lists`) takes the place of VOC's
# 21. So Pascal Context (Mottaghi et al., CVPR 2014) is read once its masks are PNGs of the 59 classes, and so is what
# CVAT exports with its labelmap.txt.

VOC_IMAGES, VOC_MASKS = "JPEGImages", "SegmentationClass"
VOC_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
BORDER: Colour = (224, 224, 192)  # around objects: does not count


def find_voc_masks(root: Path) -> DatasetHandle | None:
    """None without such folders."""
    if not ((root / VOC_IMAGES).is_dir() and (root / VOC_MASKS).is_dir()):
        return None

    def part(*names: str) -> Read | None:
        lists = [root / "ImageSets" / "Segmentation" / f"{name}.txt" for name in names]
        list_file = next((path for path in lists if path.is_file()), None)
        return (lambda: read_voc_masks(root, read_list(list_file))) if list_file else None

    if val := part(*VAL_NAMES):
        return DatasetHandle("voc", str(root), train=part("train"), val=val)
    unsplit = part("trainval", "train", "default") or partial(read_voc_masks, root)
    return DatasetHandle("voc", str(root), unsplit=unsplit)


def read_voc_masks(root: Path, stems: Sequence[str] | None = None) -> PixelSamples:
    """The images with these names, or all with masks. Raises ResnestError if there is none."""
    images, masks = stems_in(root / VOC_IMAGES), stems_in(root / VOC_MASKS)
    chosen = [Path(stem).name for stem in stems] if stems is not None else sorted(masks)
    if not chosen:
        raise ResnestError(f"{root}: no image with a mask in {VOC_MASKS}")
    keys = [images.get(stem, f"{stem}.jpg") for stem in chosen]
    mask_keys = [masks.get(stem, f"{stem}.png") for stem in chosen]
    listed = find_class_list([root]) or ClassList.from_rows(
        [
            *(Row(value, name, colour(value)) for value, name in enumerate(VOC_NAMES)),
            Row(IGNORED, "border", BORDER, True),
        ],
        root,
    )
    return PixelSamples.build(
        (FolderStore(root / VOC_IMAGES), keys), (FolderStore(root / VOC_MASKS), mask_keys), listed
    )


def colour(value: int) -> Colour:
    """VOC's colour of a value: its bits are, in turn, the highest bits of red, green and blue, then the next ones."""
    red, green, blue = (
        sum((value >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8)) for channel in range(3)
    )
    return red, green, blue
