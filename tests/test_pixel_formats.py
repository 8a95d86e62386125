"""Forms of data with masks, found and read; what does not add up is one line that names the file."""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from conftest import shared_data
from masked import CLASSES, COLOURED, COLOURS, HEIGHT, WIDTH, folders, labels, mask, pairs, panoptic, picture, text
from resnest.data.sources import open_dataset, open_split
from resnest.errors import ResnestError
from resnest.panoptic.data import PanopticSamples
from resnest.runtime.decode import BadImage
from resnest.segmentation.class_lists import read_class_list
from resnest.segmentation.data import PixelSamples
from resnest.segmentation.datasets import ADE20K_NAMES
from resnest.segmentation.datasets import CLASSES as CITY
from scenes import coco_json, instances, voc, voc_object


def _in_parts(root: Path, images: str, masks: str, ending: str = "") -> Path:
    for part, count in (("train", 4), ("val", 2)):
        pairs(root / images.format(part), root / masks.format(part), count, ending=ending, first=ord(part[0]) % 8)
    text(root / "classes.txt", CLASSES)
    return root


def _whole(root: Path) -> Path:
    pairs(root / "images" / "a", root / "masks" / "a", 4)
    pairs(root / "images" / "b", root / "masks" / "b", 2)
    text(root / "classes.txt", CLASSES)
    return root


def _test_alone(root: Path) -> Path:
    """Images to test on without masks are no part."""
    pairs(root / "images" / "train", root / "masks" / "train", 6)
    picture(root / "images" / "test" / "9.png")
    text(root / "masks" / "classes.txt", CLASSES)
    return root


def _roboflow(root: Path) -> Path:
    for part, count in (("train", 4), ("valid", 2)):
        pairs(root / part, root / part, count, ending="_mask", first=len(part))
        text(root / part / "_classes.csv", "Pixel Value, Class\n0, sky\n1, road\n2, tree\n")
    return root


def _voc(root: Path, lists: bool = True) -> Path:
    pairs(root / "JPEGImages", root / "SegmentationClass", 6)
    picture(root / "JPEGImages" / "unlisted.png")
    if lists:
        text(root / "ImageSets" / "Segmentation" / "train.txt", "0\n1\n2\n3\n")
        text(root / "ImageSets" / "Segmentation" / "val.txt", "4\n5\n")
    text(root / "ImageSets" / "Main" / "aeroplane_val.txt", "4 -1\n5 1\n")  # as VOC has, and no other data
    return root


def _cvat(root: Path) -> Path:
    content = "# label:color_rgb:parts:actions\n" + "".join(
        f"{name}:{','.join(map(str, colour))}::\n"
        for name, colour in zip(("sky", "road", "tree"), COLOURS, strict=True)
    )
    text(_voc(root) / "labelmap.txt", content)
    return root


def _ade20k(root: Path, info: str = "") -> Path:
    for part, count in (("training", 4), ("validation", 2)):
        for number in range(count):
            picture(root / "images" / part / f"ADE_{part}_{number}.png", number + len(part))
            values = labels(number) + np.uint8(1)  # 255 becomes 0
            path = root / "annotations" / part / f"ADE_{part}_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
    if info:
        text(root / "objectInfo150.txt", info)
    return root


def _cityscapes(root: Path, ending: str = "labelIds") -> Path:
    plus = 7 if ending == "labelIds" else 0
    for part, count in (("train", 4), ("val", 2)):
        for number in range(count):
            stem = f"{'ulm' if number else 'bonn'}/x_{number}"
            picture(root / "leftImg8bit" / part / f"{stem}_leftImg8bit.png", number + len(part))
            mask(root / "gtFine" / part / f"{stem}_gtFine_{ending}.png", number, plus=plus)
            picture(root / "gtFine" / part / f"{stem}_gtFine_color.png")
    return root


THREE = ("sky", "road", "tree")
VOC_NAMES = ("background", "aeroplane", "bicycle")
INFO = "Idx\tRatio\tTrain\tVal\tName\n1\t0.1\t2\t3\tsky, heaven\n2\t0.1\t2\t3\troad \n3\t0\t2\t3\ttree\n"

LAYOUTS: list[tuple[Callable[[Path], Path], str, tuple[str, ...]]] = [
    (folders, "masks", THREE),
    (lambda root: _in_parts(root, "JPEGImages/{}", "annotations/{}"), "masks", THREE),
    (lambda root: _in_parts(root, "{}/imgs", "{}/labels", "_label"), "masks", THREE),
    (lambda root: _in_parts(root, "{}", "{}annot"), "masks", THREE),
    (lambda root: _in_parts(root, "{}", "{}_labels", "_L"), "masks", THREE),
    (_whole, "masks", THREE),
    (_test_alone, "masks", THREE),
    (_roboflow, "masks", THREE),
    (_voc, "voc", VOC_NAMES),
    (lambda root: _voc(root, lists=False), "voc", VOC_NAMES),
    (_cvat, "voc", THREE),
    (_ade20k, "ade20k", ("wall", "building", "sky")),
    (lambda root: _ade20k(root, INFO), "ade20k", THREE),
    (_cityscapes, "cityscapes", ("road", "sidewalk", "building")),
    (lambda root: _cityscapes(root, "labelTrainIds"), "cityscapes", ("road", "sidewalk", "building")),
]


@pytest.mark.parametrize(("build", "format", "names"), LAYOUTS)
@pytest.mark.parametrize("task", ["segmentation", None])
def test_folders_in_many_forms(
    tmp_path: Path, build: Callable[[Path], Path], format: str, names: tuple[str, ...], task: str | None
) -> None:
    data = open_dataset(build(tmp_path), task=task, val_fraction=0.34)
    assert (data.format, len(data.train), len(data.val)) == (format, 4, 2)
    assert data.train.class_names[:3] == names
    for part in (data.train, data.val):
        assert isinstance(part, PixelSamples)
        for index in range(len(part)):
            image, seen = part.pair(index)
            wanted = labels(int(re.findall(r"([0-9]+)(?:_leftImg8bit)?\.", part.keys[index])[0]))
            if build is _cityscapes:
                wanted[wanted == 2] = 255  # label id 9, parking, does not count
            np.testing.assert_array_equal(seen, wanted)
            assert image.size == (seen.shape[1], seen.shape[0])
    assert "4 training and 2 validation images" in data.describe()
    assumed = {"aeroplane": " (Pascal VOC's classes)", "building": " (ADE20K's classes, by the names of the folders)"}
    known = assumed.get(names[1], "") if format in ("voc", "ade20k") else ""
    assert data.describe().endswith(f"classes, masks{known}")


def test_known_classes(tmp_path: Path) -> None:
    """Counts, names and colours as published; Cityscapes by label id."""
    assert len(ADE20K_NAMES) == len(set(ADE20K_NAMES)) == 150
    assert len(CITY) == 19
    samples = open_split(_voc(tmp_path), task="segmentation").samples
    assert isinstance(samples, PixelSamples)
    assert len(samples.class_names) == 21
    assert samples.classes.colours[:5] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128))
    assert samples.classes.colours[20] == (0, 64, 128)
    samples = open_split(_ade20k(tmp_path / "ade"), task="segmentation").samples
    assert isinstance(samples, PixelSamples)
    assert samples.classes.ids == tuple(range(1, 151))
    samples = open_split(_cityscapes(tmp_path / "city"), task="segmentation").samples
    assert isinstance(samples, PixelSamples)
    assert samples.classes.ids[:3] == (7, 8, 11)


def _stored(values: Any, **options: Any) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(np.asarray(values)).save(path, **options)


def _palette(path: Path) -> None:
    image = Image.fromarray(labels()).convert("P")
    image.putdata(labels().reshape(-1).tolist())
    image.putpalette([7, 7, 7] * 256)
    image.save(path)


def _in_colours(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    table = np.full((256, 3), 9, np.uint8)
    table[:3] = COLOURS
    return table[mask]


def _few_bits(bits: int) -> Callable[[Path], None]:
    """A grey PNG of less than eight bits a pixel, which Pillow writes as a palette only."""

    def write(path: Path) -> None:
        values = np.minimum(labels(), 3)
        packed = sum(values[:, place :: 8 // bits] << (8 - bits * (place + 1)) for place in range(8 // bits))
        rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in np.asarray(packed, np.uint8)))
        header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, 0, 0, 0, 0)
        chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
        content = b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)

    return write


SKY_TO_VOID = "sky\nroad\ntree\nunlabelled\n"

GOOD: list[tuple[Callable[[Path], None], str]] = [
    (_stored(labels()), CLASSES),
    (_palette, CLASSES),
    (_stored(labels().astype(np.uint16)), CLASSES),
    (_few_bits(2), SKY_TO_VOID),
    (_few_bits(4), SKY_TO_VOID),
    (_stored(np.stack([labels(), labels()], -1)), CLASSES),  # with alpha
    (_stored(_in_colours(labels())), f"{COLOURED}void 9 9 9"),
    (lambda path: Image.fromarray(_in_colours(labels())).convert("RGBA").save(path), f"{COLOURED}9 9 9 ignore"),
]


@pytest.mark.parametrize(("write", "classes"), GOOD)
def test_ways_to_store_a_mask(tmp_path: Path, write: Callable[[Path], None], classes: str) -> None:
    folders(tmp_path, classes=classes)
    write(tmp_path / "masks" / "train" / "0.png")
    train = open_dataset(tmp_path, task="segmentation").train
    assert isinstance(train, PixelSamples)
    assert train.class_names == THREE
    np.testing.assert_array_equal(train.mask(0), labels())


HOLES = np.where(labels() == 2, 7, labels())
MANY = np.arange(WIDTH * HEIGHT, dtype=np.uint16).reshape(HEIGHT, WIDTH) % 11

BAD: list[tuple[Callable[[Path], Any], str]] = [
    (_stored(HOLES), "has the value 7, which no class has, in 60 of 1200 pixels"),
    (_stored(MANY), r"has the values 3, 4, 5, 6, 7 and 3 more, which no class has, in \d+ of 1200 pixels"),
    (_stored(labels().astype(np.uint16) * 256), "has the values 256, 512, 65280, which no class has"),
    (
        _stored(_in_colours(labels())),
        "is in colours, and the class list has none: save masks with one channel of class numbers, or give the classes"
        " their colours",
    ),
    (lambda path: path.unlink(), r"cannot be read \(No such file or directory\)"),
    (lambda path: path.write_bytes(path.read_bytes()[:70]), "damaged"),
    (lambda path: path.write_bytes(b""), "empty file"),
    (lambda path: path.write_text("text"), "not a PNG, BMP or GIF image"),
    (
        lambda path: Image.fromarray(labels()).save(path, "JPEG"),
        "is a JPEG file, which is lossy: save it as PNG",
    ),
]


@pytest.mark.parametrize(("spoil", "reason"), BAD)
def test_unusable_masks_are_named(tmp_path: Path, spoil: Callable[[Path], Any], reason: str) -> None:
    folders(tmp_path, classes="\n".join(THREE))
    spoil(tmp_path / "masks" / "train" / "2.png")
    train = open_dataset(tmp_path, task="segmentation").train
    assert isinstance(train, PixelSamples)
    with pytest.raises(BadImage, match=f"^2.png: its mask 2.png: {reason}") as caught:
        train.pair(2)
    assert caught.value.name == "2.png"
    assert train.mask(1).shape == (HEIGHT, WIDTH)


def test_a_strange_colour_is_named(tmp_path: Path) -> None:
    folders(tmp_path, classes=COLOURED)
    _stored(_in_colours(labels()))(tmp_path / "masks" / "train" / "0.png")
    train = open_dataset(tmp_path, task="segmentation").train
    assert isinstance(train, PixelSamples)
    with pytest.raises(BadImage, match=r"0.png: has the colour \(9, 9, 9\), which no class has, in 12 of 1200 pixels"):
        train.mask(0)


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    folders(tmp_path)
    mask(tmp_path / "masks" / "train" / "1.png", size=(41, 30))
    train = open_dataset(tmp_path, task="segmentation").train
    assert isinstance(train, PixelSamples)
    for look in (train.decode, train.pair):
        with pytest.raises(BadImage, match=r"1.png: has 40 x 30 pixels, but is annotated as 41 x 30 by its mask 1.png"):
            look(1)
    assert train.sizes().tolist()[:3] == [[40, 30], [41, 30], [40, 30]]


CAMVID = [{"index": 1, "name": "a", "color": [1, 2, 3]}, {"index": 0, "name": "b", "ignore": True, "color": [0, 0, 0]}]
AB = (("a", 0, None), ("b", 1, None))

LISTS: list[tuple[str, Any, tuple[tuple[str, int, Any], ...], list[int]]] = [
    ("classes.json", CAMVID, (("a", 1, (1, 2, 3)),), [0]),
    ("classes.json", ["a", "b"], AB, []),
    ("classes.json", {"0": "a", "4": "b"}, (("a", 0, None), ("b", 4, None)), []),
    ("classes.json", [{"synset": "n", "name": "a"}, {"value": "7", "name": "b"}], (("a", 0, None), ("b", 7, None)), []),
    ("classes.json", '\ufeff["a", "b"]', AB, []),
    ("classes.json", [{"id": 3, "name": "void", "ignore": False}], (("void", 3, None),), []),
    ("classes.json", [{"id": 3, "name": "a"}, {"id": 5, "name": "Unlabeled"}], (("a", 3, None),), [5]),
    ("classes.txt", "a\n\n# comment\nb\n", AB, []),
    ("classes.txt", "0 a\n255: b\n", (("a", 0, None), ("b", 255, None)), []),
    ("classes.txt", "a 1 2 3\nb, 4, 5, 6\n", (("a", 0, (1, 2, 3)), ("b", 1, (4, 5, 6))), []),
    ("label_colors.txt", "64 128 64\tAnimal\n0 0 0\tVoid\n", (("Animal", 0, (64, 128, 64)),), [1]),
    ("labelmap.txt", "# label:color\nbig car:1,2,3::\nb:0,0,0::", (("big car", 0, (1, 2, 3)), ("b", 1, (0, 0, 0))), []),
    ("class_dict.csv", "name,r,g,b\na,1,2,3\nVoid,0,0,0\n", (("a", 0, (1, 2, 3)),), [1]),
    ("_classes.csv", "Pixel Value, Class\n0, a\n2, b\n", (("a", 0, None), ("b", 2, None)), []),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "rows", "ignored"), LISTS)
def test_lists_of_classes(
    tmp_path: Path, name: str, content: Any, rows: tuple[tuple[str, int, Any], ...], ignored: list[int]
) -> None:
    text(tmp_path / name, content if isinstance(content, str) else json.dumps(content))
    found = read_class_list([tmp_path / "none", tmp_path])
    assert tuple((row.name, row.value, row.colour) for row in found.rows) == rows
    assert [row.value for row in found.ignored] == ignored
    meaning = found.meaning.lookup
    assert [meaning[value] for _, value, _ in rows] == list(range(len(rows)))
    assert [meaning[value] for value in ignored] == [255] * len(ignored)


BROKEN_LISTS: list[tuple[str, str, str]] = [
    ("classes.json", "[", r"classes.json is no list of classes \(Expecting value"),
    ("classes.json", "[]", "classes.json: expected a list of classes"),
    ("classes.json", '[{"index": 0}]', r'classes.json: row 0 \(\{"index": 0\}\) has no name'),
    ("classes.json", '[{"index": "x", "name": "a"}]', 'row 0: "x" is no integer'),
    ("classes.json", '[{"name": "a", "color": [1, 2]}]', r"class 'a': its colour \[1, 2\] is not three numbers"),
    ("classes.json", '[{"name": "a", "color": [1, 2, 256]}]', "is not three numbers of 0 to 255"),
    ("classes.json", '{"-1": "a"}', "class 'a' has the value -1: those of masks are 0 to 2147483647"),
    ("classes.json", f'{{"{10**30}": "a"}}', "class 'a' has the value 10{30}: those of masks are 0 to"),
    ("classes.json", '["a", " "]', "the class of value 1 has no name"),
    ("classes.json", '[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]', "'a' and 'b' have the same value: 1"),
    ("classes.txt", "a\na\n", "'a' and 'a' have the same name: a"),
    ("classes.txt", "a 1 2 3\nb 1 2 3\n", r"'a' and 'b' have the same colour: \(1, 2, 3\)"),
    ("classes.txt", "void\n", "classes.txt lists no class that is not ignored"),
    ("classes.txt", "\n".join(map("c{}".format, range(256))), "classes.txt lists 256 classes: 255 at most"),
    ("classes.txt", "a\n", "has one class only \\(a\\): a segmenter needs two or more"),
    ("classes.txt", "", "classes.txt lists no class that is not ignored"),
    ("class_dict.csv", "colour\n1\n", "class_dict.csv: expected a first line with name, r, g, b; it has colour"),
    ("class_dict.csv", "name,r,g,b\na,1,2,\n", "class_dict.csv is no list of classes"),
]


@pytest.mark.parametrize(("name", "content", "message"), BROKEN_LISTS)
def test_broken_lists_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    folders(tmp_path)
    (tmp_path / "classes.txt").unlink()
    text(tmp_path / name, content)
    with pytest.raises(ResnestError, match=message):
        open_dataset(tmp_path, task="segmentation")


def test_no_list_of_classes(tmp_path: Path) -> None:
    folders(tmp_path)
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(ResnestError, match=r"has masks and no list of their classes: write classes.txt there, with a"):
        open_dataset(tmp_path, task="segmentation")


def test_parts_with_other_classes(tmp_path: Path) -> None:
    _roboflow(tmp_path)
    text(tmp_path / "valid" / "_classes.csv", "Pixel Value, Class\n0, tree\n1, sky\n2, road\n")
    data = open_dataset(tmp_path, task="segmentation")
    assert isinstance(data.train, PixelSamples)
    assert isinstance(data.val, PixelSamples)
    assert data.val.classes == data.train.classes
    number = int(Path(data.val.keys[0]).stem)
    np.testing.assert_array_equal(data.val.mask(0), np.array([2, 0, 1, *[255] * 253], np.uint8)[labels(number)])
    text(tmp_path / "valid" / "_classes.csv", "Pixel Value, Class\n0, tree\n1, sky\n2, sea\n")
    with pytest.raises(ResnestError, match="validation has classes that training has not: sea"):
        open_dataset(tmp_path, task="segmentation")


def test_what_else_lies_there(tmp_path: Path) -> None:
    folders(tmp_path)
    picture(tmp_path / "images" / "train" / "8.png")  # without a mask
    mask(tmp_path / "masks" / "train" / "9.png")
    data = open_dataset(tmp_path, task="segmentation")
    assert data.describe().endswith("masks (training: left out: 1 mask without an image)")
    assert isinstance(data.train, PixelSamples)
    with pytest.raises(BadImage, match=r"8.png: its mask 8.png: cannot be read"):
        data.train.pair(4)
    part = open_split(tmp_path, task="segmentation")
    assert part.describe == f"{tmp_path} (masks): 2 validation images, 3 classes, masks"


def test_masks_that_lost_their_numbers(tmp_path: Path) -> None:
    """In JPEG files; not a data set of the two classes images and masks, whatever it is looked at for."""
    folders(tmp_path)
    for path in list(tmp_path.glob("masks/*/*.png")):
        Image.open(path).convert("L").save(path.with_suffix(".jpg"))
        path.unlink()
    for task in ("segmentation", None):
        with pytest.raises(ResnestError, match=r"has masks .* in a lossy format: make masks anew as PNG"):
            open_dataset(tmp_path, task=task)


def _everything(root: Path) -> Path:
    """Boxes, masks and panoptic maps of the same pictures."""
    panoptic(root, part="val2017")
    panoptic(root, part="train2017")
    for part in ("train", "val"):
        instances(root, part, coco_json())
    return root


@pytest.mark.parametrize(
    ("build", "task", "format", "found"),
    [
        (_everything, None, "auto", "coco"),
        (_everything, "detection", "auto", "coco"),
        (_everything, "panoptic", "auto", "panoptic"),
        (_everything, "segmentation", "auto", "panoptic"),
        (_everything, None, "panoptic", "panoptic"),
        (folders, None, "masks", "masks"),
        (_voc, "segmentation", "voc", "voc"),
        (_voc, "segmentation", "auto", "voc"),
    ],
)
def test_the_task_decides_between_kinds(
    tmp_path: Path, build: Callable[[Path], Path], task: str | None, format: str, found: str
) -> None:
    data = open_dataset(build(tmp_path), task=task, format=format)
    assert data.format == found
    assert isinstance(data.train, PanopticSamples) == (found == "panoptic" and task != "segmentation")
    assert isinstance(data.train, PixelSamples) == (found in ("masks", "voc") or task == "segmentation")


def test_voc_with_boxes_and_masks(tmp_path: Path) -> None:
    _voc(tmp_path)
    for number in range(6):
        text(tmp_path / "Annotations" / f"{number}.xml", voc(str(number), voc_object("cat", (3, 3, 9, 9))))
    assert open_split(tmp_path).samples.class_names == ("cat",)
    assert isinstance(open_split(tmp_path, task="segmentation").samples, PixelSamples)


@pytest.mark.parametrize(
    ("task", "format", "message"),
    [
        ("segmentation", "auto", "holds no images with masks: expected folders images and masks, with files of the"),
        ("panoptic", "auto", "holds no images with masks: expected annotations/panoptic_train.json and panoptic_val"),
        ("segmentation", "ade20k", "holds no images of format 'ade20k': expected folders images and masks"),
        ("segmentations", "auto", "'segmentations' is not a known task. Did you mean 'segmentation'"),
        ("segmentation", "mask", "'mask' is not a known data format. Did you mean 'masks'"),
    ],
)
def test_nothing_of_the_kind(tmp_path: Path, task: str, format: str, message: str) -> None:
    instances(tmp_path, "train", coco_json())
    with pytest.raises(ResnestError, match=message):
        open_dataset(tmp_path, task=task, format=format)


def test_annotations_for_another_task_are_named(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / kind / part).mkdir(parents=True)
        Image.new("RGB", (32, 24)).save(tmp_path / "images" / part / "0.png")
        text(tmp_path / "labels" / part / "0.txt", "0 0.1 0.5 0.9 0.5 0.9 0.9 0.4 0.7\n")
    text(tmp_path / "data.yaml", "train: images/train\nval: images/val\nnames: [grass]\n")
    with pytest.raises(ResnestError, match=r"no images with masks: .* There is yolo data, which is for detection: "):
        open_dataset(tmp_path, task="segmentation")


@pytest.mark.data
def test_camvid() -> None:
    data = open_dataset(shared_data() / "camvid", task="segmentation")
    assert (len(data.train), len(data.val), data.train.class_names[8]) == (367, 101, "Car")
    assert isinstance(data.val, PixelSamples)
    seen = [data.val.mask(index) for index in range(0, 101, 20)]
    assert all(one.shape == (360, 480) for one in seen)
    assert set(np.unique(seen).tolist()) <= {*range(11), 255}
    assert data.val.classes.colours[3] == (128, 64, 128)
