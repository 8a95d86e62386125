"""Data with objects that contradicts itself: two pictures of one label file, marks, lists, boxes beside outlines."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resnest.data.sources import open_dataset, open_split
from resnest.detection.checks import find_voc
from resnest.detection.data import DetectionSamples
from resnest.errors import ResnestError
from scenes import many, picture, pictures, voc, voc_object, write

Change = Callable[[dict[str, Any]], Any]


def _read(path: Path) -> DetectionSamples:
    samples = open_split(path, "all").samples
    assert isinstance(samples, DetectionSamples)
    return samples


def _json(folder: Path, change: Change) -> Path:
    content = many()
    change(content)
    pictures(folder / "images", content)
    return write(folder / "all.json", content)


# --- YOLO: a mask or a preview beside the photo ---

BOX = "0 0.5 0.5 0.25 0.25\n"


def _yolo(root: Path, *names: str, labels: tuple[str, ...] = ("a", "b"), lines: str = BOX) -> Path:
    for name in names:
        picture(root / "images" / "train" / name)
    (root / "labels" / "train").mkdir(parents=True)
    for stem in labels:
        (root / "labels" / "train" / f"{stem}.txt").write_text(lines)
    (root / "data.yaml").write_text("train: images/train\nval: images/train\nnames: [cat, dog]\n")
    return root


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a.jpg", "b.jpg"), ""),
        (("a.jpg", "a.png", "b.jpg"), r"a\.txt: is it of a\.jpg or of a\.png\? Move the other one"),
        (("a.jpg", "b.png", "b.webp"), r"b\.txt: is it of b\.png or of b\.webp\? Move the other one"),
        (("a.jpg", "b.jpg", "c.jpg", "c.png"), ""),  # neither has objects
        (("a.jpg", "a_mask.png", "b.jpg"), ""),
    ],
)
def test_a_label_file_of_two_pictures(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    root = _yolo(tmp_path, *names)
    if message:
        with pytest.raises(ResnestError, match=message):
            open_dataset(root)
    else:
        assert len(open_dataset(root).train) == len(names)


def test_a_list_decides_between_two_pictures(tmp_path: Path) -> None:
    root = _yolo(tmp_path, "a.jpg", "a.png", "b.jpg")
    (root / "train.txt").write_text("images/train/a.jpg\nimages/train/b.jpg\n")
    (root / "data.yaml").write_text("train: train.txt\nval: train.txt\nnames: [cat, dog]\n")
    assert list(open_dataset(root).train.keys) == ["a.jpg", "b.jpg"]


# --- Marks of objects that do not count ---


@pytest.mark.parametrize(
    ("marks", "ignored"),
    [
        ({"ignore": 1}, True),
        ({"ignore": True, "iscrowd": 0}, True),
        ({"ignore": 0, "iscrowd": 1}, True),
        ({"difficult": 1}, True),
        ({"ignore": 0, "iscrowd": 0, "difficult": None}, False),
        ({"ignore": "maybe"}, "annotation 0 (image id 0): ignore: 'maybe' is no mark of a crowd"),
        ({"bbox": None, "segmentation": []}, "annotation 0 (image id 0): bbox is missing"),
        ({"bbox": [1, 2, 3], "iscrowd": 0}, "annotation 0 (image id 0): bbox [1, 2, 3] is not four numbers"),
        ({"bbox": [1, 2, 3, None]}, "annotation 0 (image id 0): not as expected"),
    ],
    ids=str,
)
def test_marks_of_coco(tmp_path: Path, marks: dict[str, Any], ignored: bool | str) -> None:
    path = _json(tmp_path, lambda content: content["annotations"][0].update(marks))
    if isinstance(ignored, str):
        with pytest.raises(ResnestError, match=re.escape(f"{path}: {ignored}")):
            _read(path)
    else:
        assert _read(path).objects.crowd.tolist() == [ignored, *[False] * 9]


# --- YOLO: key points without kpt_shape, which look like outlines ---


def _pose(x: float, y: float, *, points: int, seen: bool = True) -> list[float]:
    """A box of 0.2 x 0.4, and points on a line through it; some of them not seen."""
    steps = [place / points - 0.5 for place in range(points)]
    inner = [(x + 0.16 * step, y + 0.36 * step) if seen or place % 2 else (0, 0) for place, step in enumerate(steps)]
    return [x, y, 0.2, 0.4, *(number for point in inner for number in point)]


def _ring(x: float, y: float, *, points: int, radius: float = 0.1) -> list[float]:
    angles = [2 * math.pi * place / points for place in range(points)]
    return [number for angle in angles for number in (x + radius * math.cos(angle), y + radius * math.sin(angle))]


PLACES = [(0.3, 0.3), (0.5, 0.5), (0.7, 0.6), (0.35, 0.7)]


@pytest.mark.parametrize(
    ("objects", "points"),
    [
        ([_pose(x, y, points=17) for x, y in PLACES], "17 points"),
        ([_pose(x, y, points=5, seen=False) for x, y in PLACES], "5 points"),
        ([_pose(x, y, points=4) for x, y in PLACES], "4 points"),
        ([_pose(x, y, points=1) for x, y in PLACES], "1 point"),
        ([_ring(x, y, points=12) for x, y in PLACES], ""),
        ([_ring(0.5, 0.5, points=points) for points in (6, 6, 6, 6)], ""),  # each in the middle of its picture
        ([_ring(0.4, 0.4, points=24, radius=0.3)] * 4, ""),
        ([_ring(0.5, 0.5, points=4, radius=0.02)] * 3 + [[0.2, 0.2, 0.1, 0.1]], ""),
        ([_pose(x, y, points=17) for x, y in PLACES] + [_ring(0.4, 0.4, points=9)], ""),
    ],
    ids=["person", "unseen", "four", "one", "rings", "middle", "large", "boxes", "other"],
)
def test_key_points_are_not_outlines(tmp_path: Path, objects: list[list[float]], points: str) -> None:
    lines = "".join(f"0 {' '.join(f'{number:.6f}' for number in numbers)}\n" for numbers in objects)
    root = _yolo(tmp_path, "a.jpg", "b.jpg", lines=lines)
    if points:
        message = rf"all {2 * len(objects)} objects have \d+ numbers that are a box with {points} within it\. Key"
        with pytest.raises(ResnestError, match=message):
            open_dataset(root)
    for format in ("yolo-outlines", *(() if points else ("auto",))):
        assert open_dataset(root, format=format).train.has_outlines()


# --- Boxes and outlines that do not fit each other ---


def _scene(*, outlined: bool) -> dict[str, Any]:
    """Boxes, wide and high ones, on all of six images of 128 x 96."""
    images = [{"id": n, "file_name": f"{n}.png", "width": 128, "height": 96} for n in range(6)]
    boxes = [[4 + 43 * k + n, 10 * n + 8 * k, 20 + n, 26 - 3 * n] for n in range(6) for k in range(3)]
    objects = [{"id": n, "image_id": n // 3, "category_id": 2, "bbox": box} for n, box in enumerate(boxes)]
    for item in objects if outlined else ():
        x, y, wide, high = item["bbox"]  # type: ignore[misc]
        item["segmentation"] = [[x, y, x + wide, y, x + wide, y + high, x, y + high]]
    return {"images": images, "annotations": objects, "categories": [{"id": 2, "name": "dog"}]}


def _box(item: dict[str, Any], change: Callable[..., list[float]]) -> None:
    item["bbox"] = change(*item["bbox"])


def _points(item: dict[str, Any], change: Callable[[float, float], tuple[float, float]]) -> None:
    flat = item["segmentation"][0]
    item["segmentation"] = [[n for x, y in zip(flat[::2], flat[1::2], strict=True) for n in change(x, y)]]


CENTRES = "look like centre x, centre y, width, height in place of x, y, width, height: write x, y, width and"
EXCHANGED = "do not fit their outlines: x and y of one of the two are exchanged: write x before y"
BROKEN: dict[str, tuple[Callable[[Any], None], str]] = {
    "right": (lambda item: None, ""),
    "amodal": (lambda item: _box(item, lambda x, y, w, h: [x, y, w + 4, h + 3]), ""),
    "centres": (lambda item: _box(item, lambda x, y, w, h: [x + w / 2, y + h / 2, w, h]), CENTRES),
    "boxes-exchanged": (lambda item: _box(item, lambda x, y, w, h: [y, x, h, w]), "(look like y, x|do not fit)"),
    "outlines-exchanged": (lambda item: _points(item, lambda x, y: (y, x)), EXCHANGED),
    "outlines-fractions": (
        lambda item: _points(item, lambda x, y: (x / 128, y / 96)),
        "do not fit their outlines, which look like fractions of the image's width and height: write outlines in",
    ),
    "outlines-percent": (
        lambda item: _points(item, lambda x, y: (x / 1.28, y / 0.96)),
        "do not fit their outlines, which look like percent of the image's width and height: write outlines in pixels",
    ),
    "thousandths": (
        lambda item: _box(item, lambda x, y, w, h: [x / 0.128, y / 0.096, w / 0.128, h / 0.096]),
        "look like thousandths of the image's width and height: write x, y, width and height",
    ),
    "elsewhere": (
        lambda item: _box(item, lambda x, y, w, h: [(x + 64) % 100, y, w, h]),
        "do not fit their outlines: correct boxes or outlines, or leave outlines out",
    ),
}


@pytest.mark.parametrize(("change", "message"), BROKEN.values(), ids=BROKEN)
def test_boxes_that_contradict_all_outlines(tmp_path: Path, change: Callable[[Any], None], message: str) -> None:
    content = _scene(outlined=True)
    for item in content["annotations"]:
        change(item)
    pictures(tmp_path / "images", content)
    samples = _read(write(tmp_path / "all.json", content))
    if message:
        with pytest.raises(ResnestError, match=f"training images: the 18 boxes {message}"):
            samples.trainable()
    else:
        assert len(samples.trainable()) == 6


@pytest.mark.parametrize(
    ("name", "certain"),
    [("right", None), ("amodal", None), ("centres", False), ("boxes-exchanged", False), ("thousandths", True)],
)
def test_boxes_alone_are_suspected(tmp_path: Path, name: str, certain: bool | None) -> None:
    content = _scene(outlined=False)
    for item in content["annotations"]:
        BROKEN[name][0](item)
    pictures(tmp_path / "images", content)
    misread = _read(write(tmp_path / "all.json", content)).objects.misread()
    assert (misread.certain if misread else None) is certain
    if misread:
        assert re.match(BROKEN[name][1], misread.advice)


# --- Lists of VOC by the words in their names ---


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        (("train", "val"), "ab c -"),
        (("Train", "Val"), "ab c -"),
        (("training", "validation", "testing"), "ab c d"),
        (("TRAIN", "VALID", "TEST"), "ab c d"),
        (("train", "val", "test", "trainval"), "ab c d"),
        (("train", "val", "test", "cat_train", "cat_val"), "ab c d"),
        (("trainset", "devset"), "ab c -"),
        (("train2012", "val2012"), "ab c -"),
        (("trainval", "test"), "abc d d"),
        (("Trainval", "Test"), "abc d d"),
        (("cat_train", "cat_val"), "Main has no list of a part, only cat_train.txt, cat_val.txt: not read"),
        (("everything",), "Main has no list of a part, only everything.txt: not read"),
        (("train", "training", "val"), "Main: train.txt and training.txt are both the train list: leave one"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_lists_of_voc(tmp_path: Path, lists: tuple[str, ...], expected: str) -> None:
    for stem in "abcd":
        picture(tmp_path / "JPEGImages" / f"{stem}.png", "abcd".index(stem))
        file = tmp_path / "Annotations" / f"{stem}.xml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(voc(stem, voc_object("cat", (1, 1, 9, 9))))
    main = tmp_path / "ImageSets" / "Main"
    main.mkdir(parents=True)
    for name in lists:
        low = name.lower()
        stems = "abc" if "trainval" in low else "ab" if "train" in low else "d" if "test" in low else "c"
        (main / f"{name}.txt").write_text("\n".join(stems))
    if expected.endswith("leave one"):
        with pytest.raises(ResnestError, match=expected):
            open_dataset(tmp_path)
        return
    data = open_dataset(tmp_path)
    if expected.endswith("not read"):
        assert expected in data.describe()
        return
    handle = find_voc(tmp_path)
    assert handle is not None
    reads = (handle.train, handle.val, handle.test)
    keys = ["".join(key[0] for key in read().keys) if read else "-" for read in reads]
    assert " ".join(keys) == expected


# --- labelme: a json that names another picture than its own ---


@pytest.mark.parametrize(
    ("names", "files", "expected"),
    [
        ({"a": "a.png", "b": "b.png"}, "ab", ["a.png", "b.png"]),
        ({"a": "a.png", "b": "a.png"}, "ab", "1 json file contains another picture's name than its own, which counts"),
        ({"a": "b.png", "b": "a.png"}, "ab", "2 json files contain another picture's name than their own, which"),
        ({"a": "a.png", "b": "c.png"}, "abc", r"b\.json: is it of c\.png, which it names, or of b\.png\? Move"),
        ({"a": "a.png", "b": "c.png"}, "ac", ["a.png", "c.png"]),
        ({"a": "", "b": "x/y/b.png"}, "ab", ["a.png", "b.png"]),
    ],
    ids=str,
)
def test_the_picture_of_a_labelme_json(
    tmp_path: Path, names: dict[str, str], files: str, expected: list[str] | str
) -> None:
    shape = {"label": "cat", "points": [[4, 4], [14, 14]], "shape_type": "rectangle"}
    for stem in files:
        picture(tmp_path / f"{stem}.png")
    for stem, name in names.items():
        write(tmp_path / f"{stem}.json", {"version": "5.0", "imagePath": name, "imageData": None, "shapes": [shape]})
    if isinstance(expected, str) and "which it names" in expected:
        with pytest.raises(ResnestError, match=expected):
            _read(tmp_path)
        return
    samples = _read(tmp_path)
    assert sorted(samples.keys) == (["a.png", "b.png"] if isinstance(expected, str) else expected)
    assert isinstance(expected, list) or expected in samples.describe()


# --- COCO json in folders named by part, whatever surrounds the word ---


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train", "valid"),
        ("train2017", "val2017"),
        ("trainset", "devset"),
        ("Training", "Validation"),
        ("train", "test"),
    ],
)
def test_json_in_folders_of_parts(tmp_path: Path, train: str, val: str) -> None:
    for part in (train, val):
        content = many()
        content["images"] = content["images"][: 10 if part == train else 4]
        content["annotations"] = content["annotations"][: 10 if part == train else 4]
        pictures(tmp_path / part, content)
        write(tmp_path / part / "_annotations.coco.json", content)
    data = open_dataset(tmp_path)
    assert (data.format, len(data.train), len(data.val)) == ("coco", 10, 4)
    assert data.val.read(0) == (tmp_path / val / "0.png").read_bytes()


def test_labelme_without_shapes(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    write(tmp_path / "a.json", {"version": "5.0", "imagePath": "a.png", "imageData": None, "shapes": []})
    with pytest.raises(ResnestError, match="none of 1 images has an object"):
        _read(tmp_path)
