"""Cityscapes: street scenes of 2048 x 1024 pixels, 19 evaluated classes (Cordts et al., CVPR 2016).

    find_cityscapes(Path("cityscapes"))             # DatasetHandle, or None

Images are leftImg8bit/PART/CITY/*_leftImg8bit.png, masks gtFine/PART/CITY/*_gtFine_labelIds.png, or those with
labelTrainIds if these are missing.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from resnest.data.formats import DatasetHandle
from resnest.data.stores import FolderStore
from resnest.errors import ResnestError
from resnest.runtime.palette import Colour
from resnest.segmentation.class_lists import ClassList, Row
from resnest.segmentation.data import PixelSamples

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
    listed = class_list(trained=trained)
    return PixelSamples.build((FolderStore(images), keys), (FolderStore(masks), mask_keys), listed)


def class_list(*, trained: bool) -> ClassList:
    """Classes by the values of masks: train ids, or label ids, of which most are ignored."""
    rows = [Row(place if trained else key, name, colour) for place, (key, name, colour) in enumerate(CLASSES)]
    others = [] if trained else sorted(set(range(NUMBER)) - {key for key, _, _ in CLASSES})
    return ClassList.of([*rows, *(Row(key, f"label id {key}", ignore=True) for key in others)], "Cityscapes")
