"""ADE20K in the layout of the scene parsing challenge (Zhou et al., CVPR 2017; ADEChallengeData2016).

    find_ade20k(Path("ADEChallengeData2016"))       # DatasetHandle, or None

Images and masks are in images/training, annotations/training, and the same with validation. A mask's value 0 is
ignored, value k is class k - 1. Names are the first ones in objectInfo150.txt.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from resnest.data.formats import DatasetHandle
from resnest.errors import ResnestError
from resnest.segmentation.class_lists import ClassList, Row
from resnest.segmentation.mask_folders import Pairs, read_masks

INFO = "objectInfo150.txt"
NAMES = (
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
    listed = read_names(root / INFO) if (root / INFO).is_file() else class_list(NAMES)
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
    return class_list([told for _, told in sorted(rows)], path)


def class_list(names: tuple[str, ...] | list[str], where: str | Path = "ADE20K") -> ClassList:
    """Class list for values from 1; 0 is ignored."""
    rows = [Row(value, name) for value, name in enumerate(names, 1)]
    return ClassList.of([Row(0, "value 0", ignore=True), *rows], where)
