"""Published data sets with masks: ADE20K, Cityscapes, Pascal VOC, and other data in their folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from resnest.data.folders import pictures_in
from resnest.data.formats import DatasetHandle
from resnest.data.parts import WHOLE
from resnest.data.stores import FolderStore
from resnest.detection.voc_lists import handle_of_lists, read_list
from resnest.errors import ResnestError
from resnest.runtime.band_files import PICTURES
from resnest.runtime.palette import Colour
from resnest.segmentation.card import IGNORED
from resnest.segmentation.class_lists import ClassList, Row, find_class_list, other_lists
from resnest.segmentation.data import PixelSamples
from resnest.segmentation.mask_folders import MASK_SUFFIXES, Pairs, list_folders, pair_files, read_masks
from resnest.segmentation.survey import Survey, survey_masks

# --- ADE20K in the layout of the scene parsing challenge (Zhou et al., CVPR 2017; ADEChallengeData2016) ---
# Images and masks are in images/training, annotations/training, and the same with validation. A mask's value 0 is
# ignored, value k is class k - 1. Names are the first ones in objectInfo150.txt. A list of classes of one's own takes
# their place.

INFO = "objectInfo150.txt"
ADE20K_STEM = re.compile(r"ADE_\w+_\d+")  # ADE_train_00000001
MANY_MASKS, FEW_VALUES = 16, 8  # an image of ADE20K has ten classes on average
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
    """None without such folders."""
    train, val = (Pairs(root / "images" / part, root / "annotations" / part) for part in ("training", "validation"))
    if not (val.images.is_dir() and val.masks.is_dir()):
        return None
    with_train = train.images.is_dir() and train.masks.is_dir()
    return DatasetHandle(
        "ade20k",
        str(root),
        train=partial(read_ade20k, train, root) if with_train else None,
        val=partial(read_ade20k, val, root),
    )


def read_ade20k(pairs: Pairs, root: Path) -> PixelSamples:
    """One split, with the classes of a list in the folders, or else with ADE20K's.

    Raises:
        ResnestError: no image; an invalid list; masks that cannot be ADE20K's, and no list.
    """
    if listed := find_class_list(list_folders(pairs, root)):
        if not _of_ade20k(listed):
            return read_masks(pairs, root, listed)
        samples = read_masks(pairs, root, ade20k_classes(listed.classes.names))
        return replace(samples, notes=("the list is ADE20K's: its classes have values from 1", *samples.notes))
    if (root / INFO).is_file():
        return read_masks(pairs, root, read_names(root / INFO))
    samples = read_masks(pairs, root, ade20k_classes(ADE20K_NAMES))
    _check_ade20k(samples, pairs, root)
    others = other_lists(list_folders(pairs, root))
    return replace(samples, notes=(f"ADE20K's classes, by the names of the folders{others}", *samples.notes))


def _of_ade20k(listed: ClassList) -> bool:
    """Whether a list without values has ADE20K's classes, whose masks count from 1."""
    if listed.classes.ids != tuple(range(len(ADE20K_NAMES))):
        return False
    first = [re.split("[;,]", name)[0].strip().lower() for name in listed.classes.names]
    return len([k for k, name in enumerate(first) if name == ADE20K_NAMES[k]]) > len(first) // 2


def _check_ade20k(samples: PixelSamples, pairs: Pairs, root: Path) -> None:
    """Raises ResnestError if the masks have a value that ADE20K lacks, or too few.

    A few masks of ADE20K may have few values: there the names of the files decide.
    """
    survey = samples.survey
    named = all(ADE20K_STEM.fullmatch(Path(key).stem) for key in samples.keys)
    values = sorted(survey.first)
    above = [value for value in values if value > len(ADE20K_NAMES)]
    few = len(values) < FEW_VALUES and (survey.masks >= MANY_MASKS or not named)
    if not (above or few or survey.coloured):
        return
    if above:
        why = f"{survey.first[above[0]]} has the value {above[0]}, and ADE20K's end at {len(ADE20K_NAMES)}"
    elif survey.coloured:
        why = f"{survey.coloured} is in colours, and ADE20K's have numbers"
    else:
        why = f"{survey.looked} have the values {', '.join(map(str, values))} alone, and ADE20K has 150 classes"
    raise ResnestError(
        f"{pairs.masks} is named as in ADE20K, but its masks cannot be: {why}. Write the names of their classes in"
        " classes.txt, a name a line in the order of the masks' values from 0" + other_lists(list_folders(pairs, root))
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
# labelTrainIds if these are missing. Datumaro and CVAT write other data in this form, without CITY, as PART `default`
# if it has no parts, and with a list of its classes, label_colors.txt (datumaro 1.13, plugins/data_formats/cityscapes).

CITIES = ("leftImg8bit", "imgsFine/leftImg8bit")
IMAGE, IDS, TRAIN_IDS = "_leftImg8bit", "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"
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
    masks = root / "gtFine"
    images = next((folder for name in CITIES if (folder := root / name).is_dir()), None)
    if images is None or not masks.is_dir():
        return None
    reads = {
        part: partial(read_cityscapes, Pairs(images / part, masks / part), root)
        for part in ("train", "val", WHOLE)
        if (images / part).is_dir() and (masks / part).is_dir()
    }
    if "val" in reads:
        return DatasetHandle("cityscapes", str(root), train=reads.get("train"), val=reads["val"])
    return DatasetHandle("cityscapes", str(root), unsplit=reads[WHOLE]) if WHOLE in reads else None


def read_cityscapes(pairs: Pairs, root: Path) -> PixelSamples:
    """One split, city by city, with the classes of a list in the folder or else with Cityscapes'.

    Raises:
        ResnestError: no image; an invalid list, or one that contradicts the masks; neither a list nor cities.
    """
    found = [path for glob in ("*", "*/*") for path in pairs.images.glob(glob) if path.suffix.lower() in PICTURES]
    keys = sorted(path.relative_to(pairs.images).as_posix() for path in found if path.stem.endswith(IMAGE))
    if not keys:
        raise ResnestError(f"no images in {pairs.images} (looked for CITY/*{IMAGE}.png)")
    stems = [key.rpartition(IMAGE)[0] for key in keys]
    trained = not any((pairs.masks / f"{stem}{IDS}").is_file() for stem in stems)
    trained = trained and any((pairs.masks / f"{stem}{TRAIN_IDS}").is_file() for stem in stems)
    mask_keys = [stem + (TRAIN_IDS if trained else IDS) for stem in stems]
    sources = (FolderStore(pairs.images), keys), (FolderStore(pairs.masks), mask_keys)
    if listed := find_class_list([root]):
        return PixelSamples.build(*sources, listed)
    if not any("/" in key for key in keys):
        raise ResnestError(
            f"{pairs.images} has no folders of cities, as Cityscapes has: write the names of your classes in"
            f" {root / 'classes.txt'}, a name a line in the order of the masks' values from 0"
        )
    known = Survey()  # the names of the files tell what their values are
    return PixelSamples.build(*sources, cityscapes_classes(trained=trained), survey=known)


def cityscapes_classes(*, trained: bool) -> ClassList:
    """Classes by the values of masks: train ids, or label ids, of which most are ignored."""
    rows = [Row(train_id if trained else key, name, colour) for train_id, (key, name, colour) in enumerate(CLASSES)]
    others = [] if trained else sorted(set(range(NUMBER)) - {key for key, _, _ in CLASSES})
    return ClassList.from_rows([*rows, *(Row(key, f"label id {key}", ignore=True) for key in others)], "Cityscapes")


# --- Pascal VOC's masks, and data in the same folders (host.robots.ox.ac.uk/pascal/VOC, devkit of 2012, section 3).
# Images are in JPEGImages, masks in SegmentationClass as PNG, the names of each part in
# ImageSets/Segmentation/train.txt and val.txt. A list of classes in the folder (`class_lists`) takes the place of VOC's
# 21: CVAT's labelmap.txt, labelme's class_names.txt, or that of Pascal Context (Mottaghi et al., CVPR 2014), once its
# masks are PNGs of the 59 classes. Without a list the classes are VOC's if the data is, which the names of its files
# tell; else they are called by their numbers.

VOC_IMAGES, VOC_MASKS = "JPEGImages", "SegmentationClass"
LABELME_MASKS = "SegmentationClassPNG"  # of labelme before version 5, which has NumPy's files in the other
VOC_STEM = re.compile(r"20\d\d_\d{6}")  # from 2008 on
VOC_SET = "aeroplane_*.txt"  # of ImageSets/Main
VOC_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
BORDER: Colour = (224, 224, 192)  # around objects: does not count


def find_voc_masks(root: Path) -> DatasetHandle | None:
    """None without such folders."""
    if not ((root / VOC_IMAGES).is_dir() and (root / VOC_MASKS).is_dir()):
        return None

    def read(listed: Path | None) -> PixelSamples:
        return read_voc_masks(root, read_list(listed) if listed else None)

    return handle_of_lists(root, root / "ImageSets" / "Segmentation", read)


def read_voc_masks(root: Path, stems: Sequence[str] | None = None) -> PixelSamples:
    """The images with these names, or all with masks. Raises ResnestError if there is none."""
    masks = root / VOC_MASKS
    if not pictures_in(masks, MASK_SUFFIXES) and (root / LABELME_MASKS).is_dir():
        masks = root / LABELME_MASKS
    chosen = [Path(stem).name for stem in stems] if stems is not None else sorted(pictures_in(masks, MASK_SUFFIXES))
    if not chosen:
        raise ResnestError(f"{root}: no image with a mask in {masks.name} ({', '.join(MASK_SUFFIXES)} are read)")
    pairs = Pairs(root / VOC_IMAGES, masks)
    found = pair_files(pairs, chosen)
    keys, mask_keys = [image for image, _ in found], [mask.key for _, mask in found]
    sources = (FolderStore(pairs.images), keys), (FolderStore(masks), mask_keys)
    if listed := find_class_list(list_folders(pairs, root)):
        return PixelSamples.build(*sources, listed)
    others = other_lists(list_folders(pairs, root))
    if is_voc(root, chosen):
        return PixelSamples.build(*sources, voc_classes(), (f"Pascal VOC's classes{others}",))
    survey = survey_masks(*sources[1], whole=True)
    note = f"no list of classes: they are called by the values that {survey.looked} have{others}"
    return PixelSamples.build(*sources, numbered_classes(survey, root), (note,), survey)


def is_voc(root: Path, stems: Sequence[str]) -> bool:
    """Whether data in VOC's folders is VOC's."""
    return any((root / "ImageSets" / "Main").glob(VOC_SET)) or all(VOC_STEM.fullmatch(stem) for stem in stems)


def voc_classes() -> ClassList:
    """VOC's 21 classes."""
    rows = [Row(value, name, colour(value)) for value, name in enumerate(VOC_NAMES)]
    return ClassList.from_rows([*rows, Row(IGNORED, "border", BORDER, True)], "Pascal VOC")


def numbered_classes(survey: Survey, root: Path) -> ClassList:
    """Classes called by their values in the masks. Raises ResnestError for masks in colours."""
    if survey.coloured:
        raise ResnestError(
            f"{survey.coloured} is in colours, and {root} has no list of classes: write classes.txt there, with lines"
            " such as `road 128 64 128`"
        )
    values = sorted(survey.numbers())
    if values == [0] and survey.lone:
        values = [0, IGNORED]
    return ClassList.from_rows([Row(value, str(value)) for value in values], root)


def colour(value: int) -> Colour:
    """VOC's colour of a value: its bits are, in turn, the highest bits of red, green and blue, then the next ones."""
    red, green, blue = (
        sum((value >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8)) for channel in range(3)
    )
    return red, green, blue
