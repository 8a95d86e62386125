"""Masks and class lists as tools and people write them: what a value means, or one line on why that cannot be told."""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from conftest import Outcome
from masked import COLOURED, COLOURS, HEIGHT, WIDTH, folders, ids, labels, mask, pairs, panoptic, picture, text
from resnest.data.sources import Splits, open_dataset, open_split
from resnest.errors import ResnestError
from resnest.runtime.decode import BadImage
from resnest.runtime.palette import encode_ids
from resnest.segmentation.class_lists import read_class_list
from resnest.segmentation.data import PixelSamples
from resnest.segmentation.datasets import ADE20K_NAMES

Run = Callable[..., Outcome]
THREE = ("sky", "road", "tree")
PLAIN = "sky\nroad\ntree\n"


def opened(root: Path) -> Splits:
    return open_dataset(root, task="segmentation")


def masks_of(part: Any) -> list[NDArray[np.uint8]]:
    assert isinstance(part, PixelSamples)
    return [part.mask(index) for index in range(len(part))]


# --- Palettes against the colours of the list ---

Palette = Mapping[int, tuple[int, int, int]]
GREY = {k: (k, k, k) for k in range(256)}
BLUE, ROAD, GREEN = COLOURS
TURNED = (2, 0, 1)  # the number that each class has in palettes of another order


def with_palette(numbers: NDArray[np.uint8], palette: Palette, path: Path) -> None:
    image = Image.fromarray(numbers).convert("P")
    image.putdata(numbers.reshape(-1).tolist())
    image.putpalette([part for k in range(256) for part in palette.get(k, (255, 255, 255))])
    image.save(path)


def numbered(order: tuple[int, int, int]) -> NDArray[np.uint8]:
    table = np.full(256, 255, np.uint8)
    table[:3] = order
    return table[labels()]


PALETTES: dict[str, tuple[str, NDArray[np.uint8], Palette, str]] = {
    "the list's order": (COLOURED, labels(), dict(enumerate(COLOURS)), ""),
    "another order": (COLOURED, numbered(TURNED), {2: BLUE, 0: ROAD, 1: GREEN}, ""),
    "numbers that the list lacks": (COLOURED, numbered((7, 8, 9)), {7: BLUE, 8: ROAD, 9: GREEN}, ""),
    "colours that the list lacks": (COLOURED, labels(), {0: (9, 9, 9), 1: (8, 8, 8), 2: (7, 7, 7)}, ""),
    "greys": (f"{COLOURED}void 1 1 1\n", labels(), GREY, ""),
    "a list without colours": (PLAIN, labels(), {0: ROAD, 1: BLUE, 2: GREEN}, ""),
    "some colours that agree": (COLOURED, labels(), {0: BLUE, 1: (1, 2, 3), 2: GREEN}, ""),
    "some colours that do not": (
        COLOURED,
        labels(),
        {0: ROAD, 1: (1, 2, 3), 2: GREEN},
        r"its palette contradicts the class list: number 0 has the colour \(128, 64, 128\) of 'road', and is 'sky' by"
        r" the list, which lacks the colour \(1, 2, 3\) of number 1",
    ),
}


@pytest.mark.parametrize("name", PALETTES)
def test_colours_of_palettes(tmp_path: Path, name: str) -> None:
    classes, numbers, palette, refused = PALETTES[name]
    for path in folders(tmp_path, classes=classes).glob("masks/*/*.png"):
        with_palette(numbers, palette, path)
    data = opened(tmp_path)
    if refused:
        with pytest.raises(BadImage, match=refused):
            masks_of(data.train)
        return
    assert all((one == labels()).all() for one in (*masks_of(data.train), *masks_of(data.val)))
    said = "classes by the colours of palettes, whose numbers are in another order than in the list, in 4 of 4 masks"
    assert (said in data.describe()) == (name in ("another order", "numbers that the list lacks"))


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_a_black_mask_among_coloured_ones(tmp_path: Path, mode: str) -> None:
    """Programs that make files smaller write it in grey."""
    folders(tmp_path, classes="sky 0 0 200\nroad 128 64 128\ntree 0 160 0\nvoid 0 0 0\nleaf 255 255 255\n")
    table = np.zeros((256, 3), np.uint8)
    table[:3] = COLOURS
    for path in tmp_path.glob("masks/*/*.png"):
        Image.fromarray(table[labels()]).save(path)
    Image.new(mode, (WIDTH, HEIGHT)).save(tmp_path / "masks" / "train" / "1.png")
    Image.new("1", (WIDTH, HEIGHT), 1).save(tmp_path / "masks" / "train" / "2.png")
    seen = masks_of(opened(tmp_path).train)
    np.testing.assert_array_equal(seen[0], labels())
    assert (seen[1] == 255).all()
    assert (seen[2] == 3).all()


GIFS: dict[str, tuple[str, NDArray[np.uint8], Palette | None, str]] = {
    "class numbers": (PLAIN, labels(), None, ""),
    "colours": (f"{COLOURED}void 255 255 255\n", labels(), dict(enumerate(COLOURS)), ""),
    "colours that the list lacks": (COLOURED, labels(), dict(enumerate(COLOURS)), r"has the colour \(255, 255, 255\)"),
    "colours, a list without": (
        PLAIN,
        labels(),
        dict(enumerate(COLOURS)),
        "is in colours, and the class list has none",
    ),
    "black and white": ("bg\ncrack\n", np.minimum(labels(), 1), {0: (0, 0, 0)}, ""),
}


@pytest.mark.parametrize("name", GIFS)
def test_gifs_hold_greys_or_colours(tmp_path: Path, name: str) -> None:
    """Not the numbers of their palettes, which Pillow and others make anew for every file."""
    classes, numbers, palette, refused = GIFS[name]
    for path in list(folders(tmp_path, classes=classes).glob("masks/*/*.png")):
        path.unlink()
        if palette is None:
            Image.fromarray(numbers).save(path.with_suffix(".gif"))
        else:
            with_palette(numbers, palette, path.with_suffix(".gif"))
    if not refused:
        assert all((one == numbers).all() for one in masks_of(opened(tmp_path).train))
        return
    with pytest.raises(ResnestError, match=refused):
        masks_of(opened(tmp_path).train)


# --- 255 beside 0 ---

Write = Callable[[int], NDArray[Any]]
HALF = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) < 300


def two(high: int, low: int = 0, border: int | None = None) -> NDArray[np.uint8]:
    values = np.where(HALF, high, low).astype(np.uint8)
    if border is not None:
        values[-1] = border
    return values


def write_masks(root: Path, write: Write) -> None:
    for number, path in enumerate(sorted(root.glob("masks/*/*.png"))):
        Image.fromarray(write(number)).save(path)


BINARY: dict[str, tuple[str, Write, str, str]] = {
    "0 and 255": ("bg\ncrack\n", lambda _: two(255), "255 beside 0 alone is 'crack'", ""),
    "0 and 1": ("bg\ncrack\n", lambda _: two(1), "", ""),
    "one bit": ("bg\ncrack\n", lambda _: two(1).astype(bool), "", ""),
    "0 and 1 with a border": ("bg\ncrack\n", lambda _: two(1, border=255), "", ""),
    "whole pictures of either": ("bg\ncrack\n", lambda k: two(255 * (k % 2), 255 * (k % 2)), "255 beside 0 alone", ""),
    "listed as 255": ("0 bg\n255 crack\n", lambda _: two(255), "", ""),
    "greys of the list": ("bg 0 0 0\ncrack 255 255 255\n", lambda _: two(255), "have the greys of the class list", ""),
    "three greys": (
        "bg 0 0 0\ncrack 127 127 127\nrust 255 255 255\n",
        lambda _: two(127, border=255),
        "masks have the greys of the class list, not its values",
        "",
    ),
    "does not count": ("bg\ncrack\n255 ignore\n", lambda _: two(255), "4 masks show 'bg' alone: n", ""),
    "does not count, with numbers": ("0 bg\n1 crack\n255 ignore\n", lambda _: two(255), "2 masks show 'bg' alone", ""),
    "zeros": ("bg\ncrack\n", lambda _: two(0), "(training: all 4 masks show 'bg' alone: nothing can", ""),
    "three classes": ("bg\ncrack\nrust\n", lambda _: two(255), "", "have the values 0 and 255 alone, such as .*0.png"),
    "mixed": (
        "bg\ncrack\n",
        lambda k: two(255 if k == 1 else 1),
        "",
        r"train/0.png has the value 1 and .*train/1.png has 255 beside 0 alone, both of which may be 'crack'",
    ),
    "mixed, by part": (
        "bg\ncrack\n",
        lambda k: two(255 if k < 4 else 1),
        "",
        r"val/4.png has the value 1 and .*train/0.png has 255 beside 0 alone, both of which may be 'crack'",
    ),
}


@pytest.mark.parametrize("name", BINARY)
def test_black_and_white_masks(tmp_path: Path, name: str) -> None:
    classes, write, said, refused = BINARY[name]
    write_masks(folders(tmp_path, classes=classes), write)
    if refused:
        with pytest.raises(ResnestError, match=refused):
            opened(tmp_path)
        return
    data = opened(tmp_path)
    assert said in data.describe()
    assert ("(" in data.describe().partition(" classes")[2]) == bool(said)
    for number, seen in enumerate((*masks_of(data.train), *masks_of(data.val))):
        written = write(number)
        wanted = np.where(written > 0, 255 if "does not count" in name else 1, 0).astype(np.uint8)
        if "border" in name or name == "three greys":
            wanted[-1] = 255 if "border" in name else 2
        np.testing.assert_array_equal(seen, wanted)


@pytest.mark.parametrize(
    ("usual", "odd", "message"),
    [
        (1, 255, r"has the value 255 and not 1: it may be 'crack' or not count, and .*0.png has 1: write all masks in"),
        (255, 1, r"has the value 1, which no class has, in 300 of 1200 pixels; 255 is 'crack', as in .*0.png"),
        (0, 255, "has the value 255 and not 1: it may be 'crack' or not count: write all masks in one way, or list"),
    ],
)
def test_a_mask_that_was_not_looked_at(
    tmp_path: Path, usual: int, odd: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found when it is read."""
    monkeypatch.setattr("resnest.segmentation.survey.SAMPLE", 2)
    write_masks(folders(tmp_path, classes="bg\ncrack\n"), lambda k: two(odd if k == 1 else usual))
    train = opened(tmp_path).train
    assert isinstance(train, PixelSamples)
    with pytest.raises(BadImage, match=message):
        train.mask(1)


# --- Data in the folders of ADE20K and VOC ---


def ade20k(root: Path, count: int = 4, plus: int = 0) -> Path:
    for part in ("training", "validation"):
        for number in range(count):
            picture(root / "images" / part / f"{part}_{number}.png", number)
            mask(root / "annotations" / part / f"{part}_{number}.png", number, plus=plus)
    return root


def without_border(root: Path) -> Path:
    for path in root.glob("annotations/*/*.png"):
        values = np.array(Image.open(path))
        Image.fromarray(np.where(values == 255, 0, values)).save(path)
    return root


def voc(root: Path, stem: str = "photo_{}", masks: str = "SegmentationClass") -> Path:
    for number in range(4):
        picture(root / "JPEGImages" / f"{stem.format(number)}.png", number)
        mask(root / masks / f"{stem.format(number)}.png", number)
    return root


def labelme(root: Path, name: str = "class_names.txt", head: str = "", masks: str = "SegmentationClassPNG") -> Path:
    text(voc(root, masks=masks) / name, f"{head}sky\nroad\ntree\n")
    (root / "SegmentationClass").mkdir(exist_ok=True)
    text(root / "SegmentationClass" / "photo_0.npy", "")
    return root


def listed(root: Path, name: str, content: str) -> Path:
    text(root / name, content)
    return root


FOLDERS: dict[str, tuple[Callable[[Path], Path], tuple[str, ...], tuple[int, ...], str]] = {
    "ADE20K's folders, a list": (lambda root: listed(ade20k(root), "classes.txt", PLAIN), THREE, (0, 1, 2), "masks"),
    "a list with values": (
        lambda root: listed(ade20k(root, plus=1), "classes.txt", "0 ignore\n1 sky\n2 road\n3 tree\n"),
        THREE,
        (1, 2, 3),
        "masks",
    ),
    "a list beside the masks": (
        lambda root: listed(ade20k(root), "annotations/classes.txt", PLAIN), THREE, (0, 1, 2), "masks"
    ),
    "both lists": (
        lambda root: listed(listed(ade20k(root), "objectInfo150.txt", "Idx\tName\n1\tx\n"), "classes.txt", PLAIN),
        THREE,
        (0, 1, 2),
        "masks",
    ),
    "ADE20K's names in a list": (
        lambda root: listed(ade20k(root, plus=1), "classes.txt", "\n".join(ADE20K_NAMES)),
        ADE20K_NAMES,
        tuple(range(1, 151)),
        "masks (the list is ADE20K's: its classes have values from 1)",
    ),
    "VOC's folders, labelme's list": (labelme, THREE, (0, 1, 2), "masks"),
    "labelme's labels": (
        lambda root: labelme(root, "labels.txt", "__ignore__\n", "SegmentationClass"), THREE, (0, 1, 2), "masks"
    ),
    "VOC's folders, no list": (
        voc,
        ("0", "1", "2"),
        (0, 1, 2),
        "masks (no list of classes: they are called by the values that all 4 masks have)",
    ),
    "VOC's files": (
        lambda root: voc(root, "2007_00000{}"),
        ("background", "aeroplane", "bicycle"),
        tuple(range(21)),
        "masks (Pascal VOC's classes)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_own_data_in_the_folders_of_others(tmp_path: Path, name: str) -> None:
    build, names, ids, said = FOLDERS[name]
    data = opened(build(tmp_path))
    assert isinstance(data.train, PixelSamples)
    assert data.train.class_names[: len(names)] == names
    assert data.train.classes.ids == ids
    assert data.describe().endswith(said)
    for part in (data.train, data.val):
        for key, seen in zip(part.keys, masks_of(part), strict=True):
            np.testing.assert_array_equal(seen, labels(int(Path(key).stem.rpartition("_")[2])))


REFUSED_FOLDERS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "few values": (
        lambda root: without_border(ade20k(root, 16, plus=1)),
        "training is named as in ADE20K, but its masks cannot be: all 16 masks have the values 0, 1, 2, 3 alone, and",
    ),
    "high values": (
        lambda root: ade20k(root, 4, plus=150),
        "its masks cannot be: .*training_0.png has the value 151, and ADE20K's end at 150",
    ),
}


@pytest.mark.parametrize("name", REFUSED_FOLDERS)
def test_masks_that_cannot_be_those_of_the_folders(tmp_path: Path, name: str) -> None:
    build, message = REFUSED_FOLDERS[name]
    with pytest.raises(ResnestError, match=message):
        opened(build(tmp_path))


def test_values_that_begin_at_one(tmp_path: Path) -> None:
    """Of a list that counts from 0: the message says what may be, at once if no mask has a 0."""
    paths = sorted(folders(tmp_path, classes=PLAIN).glob("masks/*/*.png"))
    for path in paths:
        mask(path, plus=1)
    with pytest.raises(ResnestError, match=r"have the values 1, 2, 3 and none has 0, .* Are they counted from 1\?"):
        opened(tmp_path)
    mask(paths[0])
    with pytest.raises(BadImage, match=r"has the value 3, .*; the list's values are 0 to 2: if they are 1 to 3, begin"):
        masks_of(opened(tmp_path).train)


# --- Which mask belongs to which picture ---


def beside(root: Path, ending: str = "_mask") -> Path:
    pairs(root / "train", root / "train", 4, ending=ending)
    pairs(root / "val", root / "val", 2, ending=ending, first=4)
    text(root / "classes.txt", PLAIN)
    return root


def copied(root: Path, source: str, target: str) -> Path:
    (root / target).write_bytes((root / source).read_bytes())
    return root


def renamed(root: Path, ending: str) -> Path:
    for path in list(root.glob("masks/*/*.png")):
        path.rename(path.with_name(path.stem + ending))
    return root


PAIRED: dict[str, Callable[[Path], Path]] = {
    "masks beside photos": beside,
    "of the same names": lambda root: beside(root, ""),
    "with the picture's suffix": lambda root: renamed(folders(root, classes=PLAIN), ".png.png"),
    "a picture called as another's mask": lambda root: copied(
        copied(folders(root, classes=PLAIN), "images/train/0.png", "images/train/0_L.png"),
        "masks/train/0.png",
        "masks/train/0_L.png",
    ),
}


@pytest.mark.parametrize("name", PAIRED)
def test_pairs(tmp_path: Path, name: str) -> None:
    data = opened(PAIRED[name](tmp_path))
    assert data.describe().endswith("3 classes, masks")
    for part, count in ((data.train, 4), (data.val, 2)):
        assert isinstance(part, PixelSamples)
        assert len(part) - ("0_L.png" in part.keys) == count
        for index, key in enumerate(part.keys):
            image, seen = part.pair(index)
            np.testing.assert_array_equal(seen, labels(int(Path(key).stem.removesuffix("_L"))))
            assert np.asarray(image)[0, 0, 2] > 99  # a photograph, no mask


def two_folders(root: Path) -> Path:
    shutil.copytree(folders(root) / "masks", root / "labels")
    return root


TIES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "two pictures": (
        lambda root: copied(folders(root), "images/train/1.png", "images/train/1.bmp"),
        r"images/train/1.bmp and 1.png have one name but for their endings: leave the one .* the mask .*train/1.png",
    ),
    "two pictures, in the folder of the masks": (
        lambda root: copied(beside(root), "train/1.jpg", "train/1.webp"),
        "train/1.jpg and 1.webp have one name",
    ),
    "two pictures in VOC's folders": (
        lambda root: copied(voc(root), "JPEGImages/photo_1.png", "JPEGImages/photo_1.jpg"),
        "JPEGImages/photo_1.jpg and photo_1.png have one name",
    ),
    "two pictures in ADE20K's folders": (
        lambda root: copied(ade20k(root), "images/training/training_1.png", "images/training/training_1.webp"),
        "training_1.png and training_1.webp have one name",
    ),
    "two masks": (
        lambda root: copied(folders(root), "masks/train/1.png", "masks/train/1.gif"),
        r"masks/train/1.gif and 1.png may both be the mask of 1.png: leave the right one",
    ),
    "two folders of masks": (
        two_folders,
        "masks/train and .*labels/train both have masks of the pictures in .*images/train: leave one of them",
    ),
    "two masks by name": (
        lambda root: copied(folders(root), "masks/train/1.png", "masks/train/1_label.png"),
        "masks/train/1.png and 1_label.png may both be the mask of 1.png",
    ),
}


@pytest.mark.parametrize("name", TIES)
def test_ties_are_named(tmp_path: Path, name: str) -> None:
    build, message = TIES[name]
    with pytest.raises(ResnestError, match=message):
        opened(build(tmp_path))


# --- Files that keep other values than are read ---


def write_png(path: Path, pixels: NDArray[Any], kind: int) -> None:
    """A PNG of 16 bits a channel, which Pillow does not write; `kind`: 2 RGB, 4 grey and alpha, 6 RGBA."""
    rows = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels))
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, kind, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )
    )


def deep(channels: int, kind: int) -> Callable[[Path], None]:
    return lambda path: write_png(path, np.repeat(labels()[..., None].astype(np.uint16), channels, 2), kind)


def layers(*bands: NDArray[np.uint8]) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(np.stack(bands, -1)).save(path)


ZERO, FULL = np.zeros((HEIGHT, WIDTH), np.uint8), np.full((HEIGHT, WIDTH), 255, np.uint8)
STORED: dict[str, tuple[Callable[[Path], None], str]] = {
    "RGB of 16 bits": (deep(3, 2), "has 16 bits in each channel, of which 8 would be read"),
    "RGBA of 16 bits": (deep(4, 6), "has 16 bits in each channel, of which 8 would be read"),
    "grey and alpha of 16 bits": (deep(2, 4), "has 16 bits in each channel, of which 8 would be read"),
    "grey of 16 bits": (lambda path: Image.fromarray(labels().astype(np.uint16)).save(path), ""),
    "classes in alpha": (layers(ZERO, labels()), "has one value everywhere and an alpha channel that varies"),
    "colours, classes in alpha": (layers(ZERO, ZERO, ZERO, labels()), "its classes seem to be in that channel"),
    "an alpha that is the same everywhere": (layers(labels(), FULL), ""),
}


@pytest.mark.parametrize("name", STORED)
def test_files_are_read_exactly_or_refused(tmp_path: Path, name: str) -> None:
    write, refused = STORED[name]
    folders(tmp_path, classes=COLOURED)
    write(tmp_path / "masks" / "train" / "0.png")
    train = opened(tmp_path).train
    assert isinstance(train, PixelSamples)
    if refused:
        with pytest.raises(BadImage, match=f"0.png: its mask 0.png: {'.*' + refused}"):
            train.mask(0)
    else:
        np.testing.assert_array_equal(train.mask(0), labels())


def test_maps_of_16_bits_are_refused(tmp_path: Path) -> None:
    """Of panoptic data, whose ids would lose their lower parts."""
    path = panoptic(tmp_path)
    pixels = encode_ids(ids()).astype(np.uint16)
    write_png(path.with_suffix("") / "0.png", pixels * 257, 2)
    for task in ("panoptic", "segmentation"):
        samples = open_split(tmp_path, task=task).samples
        with pytest.raises(BadImage, match=r"its map 0.png: has 16 bits in each channel, of which 8 would be"):
            samples.example(0)


@pytest.mark.parametrize(
    ("folder", "suffix", "message"),
    [
        ("masks", ".jp2", r"masks/\w+ has masks for the pictures of .*, such as \d.jp2 for \d.png, in a format"),
        ("images", ".jp2", r"images/\w+ has the pictures of .* in a format that is not read, such as \d.jp2 for"),
        ("masks", ".npy", "in a format that is not read: make masks anew as PNG"),
    ],
)
def test_formats_that_are_not_read(tmp_path: Path, folder: str, suffix: str, message: str) -> None:
    for path in list(folders(tmp_path).glob(f"{folder}/*/*.png")):
        path.rename(path.with_suffix(suffix))
    with pytest.raises(ResnestError, match=message):
        opened(tmp_path)


# --- Class lists ---

BOX_CAR = (("box", 2, None), ("car", 0, None))
LISTS: dict[str, tuple[str, str, tuple[tuple[str, int, Any], ...] | str]] = {
    "equals": ("classes.txt", "2=box\n0=car\n", BOX_CAR),
    "brackets": ("classes.txt", "2) box\n0) car\n", BOX_CAR),
    "square brackets": ("classes.txt", "[2] box\n[0] car\n", BOX_CAR),
    "dashes": ("classes.txt", "2 - box\n0 - car\n", BOX_CAR),
    "a colon behind": ("classes.txt", "box: 2\ncar: 0\n", BOX_CAR),
    "a tab behind": ("classes.txt", "box\t2\ncar\t0\n", BOX_CAR),
    "of a Python dictionary": ("classes.txt", "'box': 2,\n'car': 0,\n", BOX_CAR),
    "in order": ("classes.txt", "box 0\ncar 1\n", (("box", 0, None), ("car", 1, None))),
    "names with numbers": ("classes.txt", "zone 1\nzone 2\n", (("zone 1", 0, None), ("zone 2", 1, None))),
    "one name with a number": ("classes.txt", "box\nzone 2\n", (("box", 0, None), ("zone 2", 1, None))),
    "numbered names with numbers": ("classes.txt", "1 zone 2\n2 zone 3\n", (("zone 2", 1, None), ("zone 3", 2, None))),
    "a digit in the name": ("classes.txt", "18-wheeler\n3d\n", (("18-wheeler", 0, None), ("3d", 1, None))),
    "numbers alone": ("classes.txt", "0\n1\n", (("0", 0, None), ("1", 1, None))),
    "hexadecimal": ("classes.txt", "box #0102ff\ncar #000000\n", (("box", 0, (1, 2, 255)), ("car", 1, (0, 0, 0)))),
    "FreeSurfer": ("classes.txt", "4 Left-X 1 2 3 0\n5 b 4 5 6 0\n", (("Left-X", 4, (1, 2, 3)), ("b", 5, (4, 5, 6)))),
    "ITK-SNAP": (
        "labels.txt", '# x\n1 1 2 3 1 1 1 "a b"\n2 4 5 6 1 0 0 "c"\n', (("a b", 1, (1, 2, 3)), ("c", 2, (4, 5, 6))),
    ),
    "CVAT with parts": (
        "labelmap.txt",
        "man:0,128,0:head,hand:run\nground:255,255,255:grass\nsky:0,0,0::\n",
        (("man", 0, (0, 128, 0)), ("ground", 1, (255, 255, 255)), ("sky", 2, (0, 0, 0))),
    ),
    "CVAT without colours": ("labelmap.txt", "man:::\nsky:::\n", (("man", 0, None), ("sky", 1, None))),
    "red, green, blue": ("class_dict.csv", "name,red,green,blue\na,1,2,3\n", (("a", 0, (1, 2, 3)),)),
    "semicolons": ("class_dict.csv", "Name;R;G;B\na;1;2;3\n", (("a", 0, (1, 2, 3)),)),
    "one column for the colour": ("classes.csv", 'label,class_name,color\n3,a,"#010203"\n', (("a", 3, (1, 2, 3)),)),
    "a colour in one cell": ("classes.csv", 'name,rgb\na,"(1, 2, 3)"\n', (("a", 0, (1, 2, 3)),)),
    "JSON, hexadecimal": ("classes.json", '[{"name": "a", "color": "#010203"}]', (("a", 0, (1, 2, 3)),)),
    "a number that may be of the name": ("classes.txt", "box 2\ncar 0\n", r"in the line 'box 2' may be its value or"),
    "counted from 1, behind": ("classes.txt", "box 1\ncar 2\n", "write `1 box`, or `0 box 1`, and so in every line"),
    "some numbered": ("classes.txt", "0 box\ncar\n", "the line '0 box' begins with a number and 'car' does not"),
    "some numbered behind": ("classes.txt", "box: 2\ncar\n", "the line 'box: 2' has a value behind the name, and"),
    "four numbers": ("classes.txt", "4 1 2 3 box\n5 1 2 4 car\n", "line '4 1 2 3 box' can be read in several ways"),
    "a number behind, and a colour": ("classes.txt", "1 2 3 box 1\n4 5 6 car 0\n", "can be read in several ways"),
    "four numbers behind some": ("classes.txt", "0 box 1 2 3\n1 zone 2 1 2 4\n", "has three numbers behind the name"),
    "a quoted name": ("classes.txt", '0 "zone 2" 1 2 3\n', (("zone 2", 0, (1, 2, 3)),)),
    "no name": ("classes.txt", "1 2 3\n", "the line '1 2 3' can be read in several ways"),
    "two columns of a colour": ("class_dict.csv", "name,r,g\na,1,2\n", "a colour needs three columns, r, g and b; it"),
    "JSON, a word for ignore": ("classes.json", '[{"name": "a", "ignore": "no"}]', 'ignore is "no", not true or false'),
    "a line end in a name": ("classes.json", '["a\\nb"]', "has characters that cannot be printed"),
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_class_lists(tmp_path: Path, name: str) -> None:
    file, content, wanted = LISTS[name]
    text(tmp_path / file, content)
    if isinstance(wanted, str):
        with pytest.raises(ResnestError, match=f"{file}: .*{wanted}"):
            read_class_list([tmp_path])
        return
    rows = read_class_list([tmp_path]).every
    assert tuple((row.name, row.value, row.colour) for row in rows) == wanted


def test_two_lists_in_one_folder(tmp_path: Path) -> None:
    """They agree, or one is no list, or both are named."""
    folders(tmp_path, classes=PLAIN)
    for other in ("sky\nroad\ntree\n", "__ignore__\nsky\n", "0 a 1 2 3 4 5 6\n"):
        text(tmp_path / "labels.txt", other)
        assert open_split(tmp_path, task="segmentation").samples.class_names == THREE
    text(tmp_path / "labels.txt", "sky\ntree\nroad\n")
    with pytest.raises(ResnestError, match=r"classes.txt and labels.txt beside it contradict each other: 'road' has"):
        opened(tmp_path)


def test_what_is_assumed_is_said_by_the_commands(tmp_path: Path, cli: Run) -> None:
    write_masks(folders(tmp_path, classes="bg\ncrack\n"), lambda _: two(255))
    outcome = cli("doctor", "--data", tmp_path)
    assert outcome.code == 0
    assert "2 classes, masks (255 beside 0 alone is 'crack'; a line `255 ignore` in the class list" in outcome.out
    assert "bg 75.0%, crack 25.0%" in outcome.out
