"""Pascal VOC's masks, and data in the same folders (host.robots.ox.ac.uk/pascal/VOC, devkit of 2012, section 3).

    find_voc_masks(Path("VOCdevkit/VOC2012"))       # DatasetHandle, or None

Images are in JPEGImages, masks in SegmentationClass as PNG, the names of each part in ImageSets/Segmentation/train.txt
and val.txt. A list of classes in the folder (`class_lists`) takes the place of VOC's 21. So Pascal Context (Mottaghi et
al., CVPR 2014) is read once its masks are PNGs of the 59 classes, and so is what CVAT exports with its labelmap.txt.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from resnest.data.folders import VAL_NAMES, stems_in
from resnest.data.formats import DatasetHandle, Read
from resnest.data.stores import FolderStore
from resnest.detection.voc import read_list
from resnest.errors import ResnestError
from resnest.runtime.palette import Colour
from resnest.segmentation.class_lists import ClassList, Row, find_class_list
from resnest.segmentation.data import PixelSamples
from resnest.segmentation.spec import IGNORED

IMAGES, MASKS = "JPEGImages", "SegmentationClass"
NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
BORDER: Colour = (224, 224, 192)  # around objects: does not count


def find_voc_masks(root: Path) -> DatasetHandle | None:
    """None without such folders."""
    if not ((root / IMAGES).is_dir() and (root / MASKS).is_dir()):
        return None

    def part(*names: str) -> Read | None:
        lists = [root / "ImageSets" / "Segmentation" / f"{name}.txt" for name in names]
        found = next((path for path in lists if path.is_file()), None)
        return (lambda: read_voc_masks(root, read_list(found))) if found else None

    if val := part(*VAL_NAMES):
        return DatasetHandle("voc", str(root), train=part("train"), val=val)
    return DatasetHandle("voc", str(root), whole=part("trainval", "train", "default") or partial(read_voc_masks, root))


def read_voc_masks(root: Path, stems: Sequence[str] | None = None) -> PixelSamples:
    """The images with these names, or all with masks. Raises ResnestError if there is none."""
    images, masks = stems_in(root / IMAGES), stems_in(root / MASKS)
    chosen = [Path(stem).name for stem in stems] if stems is not None else sorted(masks)
    if not chosen:
        raise ResnestError(f"{root}: no image with a mask in {MASKS}")
    keys = [images.get(stem, f"{stem}.jpg") for stem in chosen]
    mask_keys = [masks.get(stem, f"{stem}.png") for stem in chosen]
    listed = find_class_list([root]) or ClassList.of(
        [*(Row(value, name, colour(value)) for value, name in enumerate(NAMES)), Row(IGNORED, "border", BORDER, True)],
        root,
    )
    return PixelSamples.build((FolderStore(root / IMAGES), keys), (FolderStore(root / MASKS), mask_keys), listed)


def colour(value: int) -> Colour:
    """VOC's colour of a value: its bits are, in turn, the highest bits of red, green and blue, then the next ones."""
    red, green, blue = (
        sum((value >> (3 * place + channel) & 1) << (7 - place) for place in range(8)) for channel in range(3)
    )
    return red, green, blue
