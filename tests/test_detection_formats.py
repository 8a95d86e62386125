"""Forms of data with objects, read as annotated; what does not add up is one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from resnest.data.sources import open_dataset, open_split
from resnest.detection.data import DetectionSamples
from resnest.detection.transforms import transform_objects
from resnest.errors import ResnestError
from scenes import HEIGHT, SQUARE, WIDTH, as_is, coco_json, instances, many, picture, pictures, voc, voc_object, write

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools


def test_a_json_file_is_read_as_annotated(tmp_path: Path) -> None:
    pictures(tmp_path / "images", coco_json())
    data = open_split(write(tmp_path / "all.json", coco_json())).samples
    assert isinstance(data, DetectionSamples)
    assert data.class_names == ("dog", "cat")
    assert data.category_ids == (2, 9)
    assert data.labels.tolist() == [[True, True], [True, False], [False, False], [False, False]]
    first, second, third, fourth = data.objects
    assert first.boxes.tolist() == [[4, 4, 14, 14], [5, 0, 7, 30]]
    assert first.ids.tolist() == [100, 102]
    assert first.labels.tolist() == [1, 0]
    assert first.segmentations[0] == SQUARE
    assert second.areas.tolist() == [1, 1200]  # the first has none: its box's
    assert second.trainable_mask().tolist() == [True, False]
    assert [len(third.ids), len(fourth.ids), fourth.image_id] == [1, 0, 3]
    wanted = [coco.decode(coco.frPyObjects(SQUARE, HEIGHT, WIDTH))[..., 0], np.zeros((HEIGHT, WIDTH))]
    wanted[1][:, 5:7] = 1
    drawn = transform_objects(first, as_is(), masks=True).masks
    assert drawn is not None
    np.testing.assert_array_equal(drawn.drawn().numpy(), np.stack(wanted))


def _pair(make: Callable[[Path, str, dict[str, Any]], Path]) -> Callable[[Path], Path]:
    def build(root: Path) -> Path:
        for part in ("train", "val"):
            make(root, part, coco_json())
        return root

    return build


def _alone(root: Path) -> Path:
    return instances(root, "train", many())


def _original(root: Path, part: str, content: dict[str, Any]) -> Path:
    pictures(root / f"{part}2017", content)
    write(root / "annotations" / f"captions_{part}2017.json", {})
    return write(root / "annotations" / f"instances_{part}2017.json", content)


def _with_prefix(root: Path, part: str, content: dict[str, Any]) -> Path:
    for item in content["images"]:
        item["file_name"] = f"{part}/{item['file_name']}"
    pictures(root / "images", content)
    write(root / "annotations" / f"panoptic_{part}.json", {})
    return write(root / "annotations" / f"instances_{part}.json", content)


def _roboflow(root: Path, part: str, content: dict[str, Any]) -> Path:
    folder = root / ("valid" if part == "val" else part)
    pictures(folder, content)
    return write(folder / "_annotations.coco.json", content)


def _devkit(root: Path) -> Path:
    for part, stems in (("train", ("a", "b")), ("val", ("c",))):
        (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(stems))
        for stem in stems:
            picture(root / "JPEGImages" / f"{stem}.png")
            (root / "Annotations").mkdir(exist_ok=True)
            cat = voc_object("cat", (2, 3, 10, 12))
            more = voc_object("cat", (5, 6, 20, 21)) if part == "val" else ""
            (root / "Annotations" / f"{stem}.xml").write_text(voc(stem, cat + more))
    return root


def _flat(root: Path) -> Path:
    for stem in "abcde":
        picture(root / f"{stem}.png")
        (root / f"{stem}.xml").write_text(voc(stem, voc_object("cat", (1, 1, 9, 9))))
    return root


def _by_part(root: Path) -> Path:
    for part in ("train", "valid"):
        (root / part).mkdir()
        _flat(root / part)
    return root


@pytest.mark.parametrize(
    ("build", "format", "images", "objects"),
    [
        (_pair(instances), "coco", (4, 4), (3, 3)),
        (_pair(_original), "coco", (4, 4), (3, 3)),
        (_pair(_with_prefix), "coco", (4, 4), (3, 3)),
        (_pair(_roboflow), "coco", (4, 4), (3, 3)),
        (_alone, "coco", (8, 2), (8, 2)),
        (_devkit, "voc", (2, 1), (2, 2)),
        (_flat, "voc", (4, 1), (4, 1)),
        (_by_part, "voc", (5, 5), (5, 5)),
    ],
    ids=[
        "annotations",
        "as COCO has it",
        "folder in the name",
        "roboflow",
        "one json",
        "devkit",
        "flat xml",
        "xml by part",
    ],
)
def test_layouts(
    tmp_path: Path,
    build: Callable[[Path], Path],
    format: str,
    images: tuple[int, int],
    objects: tuple[int, int],
) -> None:
    splits = open_dataset(build(tmp_path))
    assert splits.format == format
    assert (len(splits.train), len(splits.val)) == images
    assert isinstance(splits.train, DetectionSamples)
    assert isinstance(splits.val, DetectionSamples)
    assert (splits.train.object_counts().sum(), splits.val.object_counts().sum()) == objects
    for part in (splits.train, splits.val):
        assert [part.decode(index).size for index in range(len(part))] == [(WIDTH, HEIGHT)] * len(part)


def test_voc_counts_from_one_and_difficult_is_not_learned(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    boxes = voc_object("dog", (1, 1, 40, 30)) + voc_object("cat", (3, 4, 3, 4), "<difficult>1</difficult>")
    (tmp_path / "a.xml").write_text(voc("a", boxes, size=""))  # without its size, which the image knows
    samples = open_split(tmp_path).samples
    assert isinstance(samples, DetectionSamples)
    assert samples.class_names == ("cat", "dog")
    assert samples.objects[0].boxes.tolist() == [[0, 0, 40, 30], [2, 3, 3, 4]]
    assert samples.objects[0].trainable_mask().tolist() == [True, False]


def test_incomplete_images_are_left_out_of_both_parts_and_named(tmp_path: Path) -> None:
    content = coco_json()
    content["images"][3]["suspect_incomplete"] = True
    for part in ("train", "val"):
        instances(tmp_path, part, content)
    splits = open_dataset(tmp_path)
    assert (len(splits.train), len(splits.val)) == (3, 3)
    assert "left out: 1 image marked suspect_incomplete" in splits.describe()


def test_parts_agree_on_classes_whatever_their_ids(tmp_path: Path) -> None:
    for part, categories in (("train", {9: "cat", 2: "dog"}), ("val", {2: "cat", 9: "dog", 5: "emu"})):
        content = coco_json()
        content["categories"] = [{"id": number, "name": name} for number, name in categories.items()]
        instances(tmp_path, part, content)
    splits = open_dataset(tmp_path)
    assert splits.train.class_names == splits.val.class_names == ("dog", "cat", "emu")
    assert splits.train.objects[0].labels.tolist() == [1, 0]  # type: ignore[attr-defined]
    assert splits.val.objects[0].labels.tolist() == [0, 1]  # type: ignore[attr-defined]
    assert splits.val.category_ids == (2, 9, 5)  # type: ignore[attr-defined]


def _set(*place: Any) -> Callable[[dict[str, Any]], Any]:
    *path, last, value = place

    def change(content: dict[str, Any]) -> None:
        for key in path:
            content = content[key]
        content[last] = value

    return change


def _drop(*place: Any) -> Callable[[dict[str, Any]], Any]:
    *path, last = place

    def change(content: dict[str, Any]) -> None:
        for key in path:
            content = content[key]
        del content[last]

    return change


FIRST = ("annotations", 0)


def _without_box(outline: Any) -> Callable[[dict[str, Any]], Any]:
    def change(content: dict[str, Any]) -> None:
        content["annotations"][0].pop("bbox")
        content["annotations"][0]["segmentation"] = outline

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop("images"), "has no list 'images'"),
        (_drop("annotations"), "has no list 'annotations'"),
        (_drop("categories"), "has no list 'categories'"),
        (_set("categories", []), "lists no category"),
        (_set("images", []), "lists no image"),
        (_set("categories", 0, "id", 2), "two categories have the id 2: 'cat' and 'dog'"),
        (_set("categories", 0, "name", "dog"), "two categories are called 'dog': 2 and 9"),
        (_set("images", 1, "id", 40), "two images have the id 40: 40.png and 7.png"),
        (_drop("images", 0, "width"), "image 40: width is missing"),
        (_set("images", 0, "height", 0), "image 40: width and height must be 1 pixel or more"),
        (_set("images", 0, "id", "x"), 'image x: the image id "x" is no whole number'),
        (_set(*FIRST, "image_id", 5), "annotation 100: image_id 5 is not among the images"),
        (_set(*FIRST, "category_id", 1), "annotation 100: category_id 1 is not among the categories"),
        (_set(*FIRST, "category_id", 2**70), "annotation 100 (image id 40): the category id 1180591620717411303424 is"),
        (_without_box(None), "annotation 100 (image id 40): bbox is missing (there is no outline to make it from)"),
        (_without_box([[1, 1, 2, 2]]), "annotation 100 (image id 40): bbox is missing (polygon 0 has 2 points"),
        (_set("images", 0, "width", 12.5), "image 40: width 12.5 is no whole number"),
        (_set("images", 0, "width", float("nan")), "image 40: width nan is no whole number"),
        (_set("images", 0, "id", "40"), "image ids are text in 'images', as \"40\", and numbers in 'images', as 7"),
        (_set(*FIRST, "image_id", "40"), "image ids are text in 'annotations', as \"40\", and numbers in 'images'"),
        (_set("categories", 1, "id", "2"), "category 2: category ids are text in 'categories', as \"2\", and numbers"),
        (_set(*FIRST, "image_id", True), "the image id True is no whole number"),
        (_set(*FIRST, "bbox", [1, 2, 3]), "annotation 100 (image id 40): bbox [1, 2, 3] is not four numbers"),
        (_set(*FIRST, "bbox", [1, 2, "3", 4]), "annotation 100 (image id 40): not as expected"),
        (_set(*FIRST, "bbox", [1, 2, float("nan"), 4]), "annotation 100: bbox [1.0, 2.0, nan, 4.0] is not four finite"),
        (_set(*FIRST, "bbox", [0, 0, 1e300, 1]), "annotation 100: bbox [0.0, 0.0, 1e+300, 1.0] is not four finite"),
        (_set(*FIRST, "iscrowd", "perhaps"), "annotation 100 (image id 40): iscrowd: 'perhaps' is no mark of a crowd"),
        (_set("categories", 0, "name", None), "category 9: the name null is no text"),
        (_set("categories", 0, "name", " "), "category 9: the name ' ' is empty"),
        (_set("categories", 0, "name", "a\nb"), "category 9: the name 'a\\nb' has a line end or another control"),
        (_set("categories", 0, "name", "dog\t"), "two categories are called 'dog': 2 and 9"),
        (_set(*FIRST, "id", "x\n" * 999), "annotation x\\nx\\n"),
        (
            _set("categories", [{"id": number, "name": str(number)} for number in range(65537)]),
            "lists 65,537 categories: 65,536 at most",
        ),
        (_set("annotations", 1, 3), "annotation 3: not as expected"),
        (_set("annotations", []), "no training image has an object with an area"),
        (lambda content: [item.update(iscrowd=1) for item in content["annotations"]], "(crowds do not count)"),
        (
            lambda content: [item.update(file_name="x/no" + item["file_name"]) for item in content["images"]],
            "there is no image x/no40.png in ",
        ),
    ],
)
def test_coco_that_does_not_add_up_is_one_line(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    content = coco_json()
    pictures(tmp_path / "images", content)
    change(content)
    with pytest.raises(ResnestError, match=re.escape(message)) as caught:
        open_dataset(write(tmp_path / "all.json", content))
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "all.json") in str(caught.value)
    assert len(str(caught.value)) < 500 + 2 * len(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{}]", "all.json starts with '[', not with {: it is not COCO json"),
        ('{"info": ' + "[" * 9999, "all.json is nested too deeply at character 9: it is not COCO json"),
    ],
)
def test_json_that_is_not_cocos(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "all.json").write_text(text)
    with pytest.raises(ResnestError, match=re.escape(message)):
        open_dataset(tmp_path / "all.json")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '}],"annotations"',
            '},],"annotations"',
            "in 'images', after 4 complete items: a comma with nothing behind it",
        ),
        ('"id":9,', '"id":9,,', "a comma with nothing before it"),
        ('"name":"cat"}', '"name":"cat",}', "a comma with nothing behind it"),
        ('"file_name":"7.png"', "'file_name':'7.png'", "single quotes: texts of json are in double ones"),
        ('"iscrowd":0', '"iscrowd":False', "False of Python: json has false"),
        ('"iscrowd":0', '"iscrowd":None', "None of Python: json has null"),
        ('"area":60', '"area":nan', "nan of Python: json has no such number"),
        ('"area":60', '"area":', "a colon with nothing behind it"),
        ('"annotations"', '// objects\n"annotations"', "a comment, which json has not"),
        ('},{"id":2', '}{"id":2', "a comma is missing before it"),
        ('"name":"cat"},', '"name":"cat"},', ""),
    ],
)
def test_what_is_no_json_is_named_with_its_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    content = coco_json()
    pictures(tmp_path / "images", content)
    text = json.dumps(content, separators=(",", ":"))
    text = text.replace('{"id":9,', '\n{"id":9,') if "\n" not in new and '"id":9' not in old else text
    assert old in text
    (tmp_path / "all.json").write_text(text.replace(old, new, 1))
    if not message:
        open_split(tmp_path / "all.json")
        return
    with pytest.raises(ResnestError, match=r"all\.json is no valid json in line \d+, at character") as caught:
        open_split(tmp_path / "all.json")
    assert str(caught.value).endswith(message)


def _text_ids(content: dict[str, Any]) -> None:
    for item in content["images"] + content["categories"]:
        item["id"] = str(item["id"])
    for item in content["annotations"]:
        item.update(image_id=str(item["image_id"]), category_id=str(item["category_id"]), id=str(item["id"]))


def _points(content: dict[str, Any]) -> None:
    for item in content["images"]:
        item.update(id=float(item["id"]), width=float(WIDTH), height=float(HEIGHT))


def _elsewhere(folder: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for item in content["images"]:
            item["file_name"] = folder + item["file_name"]

    return change


def _no_sizes(content: dict[str, Any]) -> None:
    for item in content["images"][1:]:
        item.pop("width")
        item["height"] = None


def _no_boxes(content: dict[str, Any]) -> None:
    del content["annotations"][0]["bbox"]
    content["annotations"][1]["bbox"] = None
    content["annotations"][2]["bbox"] = []


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (_text_ids, "ids are text and are read as numbers"),
        (_points, "2 classes"),
        (
            _elsewhere("C:\\data\\pets\\"),
            "found by the last part of their names, such as 40.png for C:/data/pets/40.png",
        ),
        (
            _elsewhere("/home/me/pets/"),
            "found by the last part of their names, such as 40.png for /home/me/pets/40.png",
        ),
        (_no_sizes, "sizes of 3 images are read from the files"),
        (_no_boxes, "the box around the outline is taken for 3 objects without one"),
    ],
)
def test_other_ways_to_write_the_same(change: Callable[[dict[str, Any]], Any], note: str, tmp_path: Path) -> None:
    content = coco_json()
    pictures(tmp_path / "images", content)
    plain = open_split(write(tmp_path / "all.json", content)).samples
    change(content)
    split = open_split(write(tmp_path / "all.json", content))
    assert note in split.describe
    assert isinstance(plain, DetectionSamples)
    assert isinstance(split.samples, DetectionSamples)
    assert split.samples.fingerprint == plain.fingerprint
    assert [item.image_id for item in split.samples.objects] == [40, 7, 11, 3]
    assert split.samples.category_ids == (2, 9)


def test_an_image_without_size_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    content = coco_json()
    pictures(tmp_path / "images", content)
    _no_sizes(content)
    (tmp_path / "images" / "7.png").write_bytes(b"no picture")
    split = open_split(write(tmp_path / "all.json", content))
    assert list(split.samples.keys) == ["40.png", "11.png", "3.png"]
    assert "left out: 1 image without width and height that cannot be read" in split.describe


@pytest.mark.parametrize(("share", "within"), [(0.01, ""), (0.1, "images"), (0.6, "annotations"), (1, "categories")])
def test_json_that_is_cut_off(tmp_path: Path, share: float, within: str) -> None:
    pictures(tmp_path / "images", coco_json())
    text = json.dumps(coco_json())
    path = tmp_path / "all.json"
    path.write_text(text[: int(len(text) * share) - 3])
    with pytest.raises(ResnestError, match=r"all\.json is cut off or damaged at character [0-9,]+ of") as caught:
        open_dataset(path)
    assert (f"in {within!r}, after" in str(caught.value)) == bool(within)


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB + voc("a", voc_object("&c;", (1, 1, 9, 9))), "is refused: it has a DOCTYPE"),
        (voc("a", voc_object("cat", (1, 1, 9, 9)))[:-20], "a.xml is cut off or not xml (unclosed token"),
        ("<svg/>", "a.xml is not Pascal VOC's: it starts with <svg>"),
        (
            voc("a", voc_object("cat", (1, 1, 9))),
            "object 1 (cat): bndbox ['1', '1', '9', None] is not four finite numbers",
        ),
        (voc("a", voc_object("cat", (1, "x", 9, 9))), "is not four finite numbers"),
        (voc("a", voc_object("", (1, 1, 9, 9))), "object 1 (without a name): needed are name"),
        (
            voc("a", voc_object("cat", (1, 1, 9, 9), "<difficult>maybe</difficult>")),
            "a.xml: object 1 (cat): 'maybe' is no mark of a crowd or a difficult object: expected 0 or 1",
        ),
        (voc("a", voc_object("a\nb", (1, 1, 9, 9))), "the name 'a\\nb' has a line end or another control character"),
        (voc("a"), "no training image has an object with an area"),
    ],
)
def test_voc_that_does_not_add_up_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    for stem in "ab":
        picture(tmp_path / f"{stem}.png")
        (tmp_path / f"{stem}.xml").write_text(text if stem == "a" else voc("b"))
    with pytest.raises(ResnestError, match=re.escape(message)) as caught:
        open_dataset(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_the_split_is_reproducible(tmp_path: Path) -> None:
    content = many()
    path = instances(tmp_path, "train", content)
    one = open_dataset(path)
    content["images"].reverse()
    assert sorted(one.val.keys) == sorted(open_dataset(write(path, content)).val.keys)
