"""Data with objects as tools and people write it: read as it is meant, said where it is decided, else one line."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from conftest import Outcome
from painted import TINY_RUN
from resnest.data.sources import open_dataset, open_split
from resnest.detection.card import DetectionCard, DetectionPreprocess, DetectorSpec
from resnest.detection.data import DetectionSamples
from resnest.errors import ResnestError
from resnest.inference.evaluation import exif_of_run
from resnest.inference.model import account_of
from resnest.recipes import find_recipe, override, to_yaml
from resnest.training.train import train
from scenes import HEIGHT, WIDTH, instances, many, picture, pictures, voc, voc_object, write
from small import SPEC

Change = Callable[[dict[str, Any]], Any]
CAT = voc_object("cat", (1, 1, 9, 9))


def _read(path: Path) -> DetectionSamples:
    samples = open_split(path, "all").samples
    assert isinstance(samples, DetectionSamples)
    return samples


def _json(folder: Path, change: Change, content: dict[str, Any] | None = None) -> Path:
    content = content or many()
    change(content)
    pictures(folder / "images", content)
    return write(folder / "all.json", content)


def _card(*, masks: bool = False) -> DetectionCard:
    return DetectionCard(
        architecture="resnest",
        spec=SPEC,
        class_names=("cat", "dog"),
        category_ids=(9, 2),
        preprocess=DetectionPreprocess(),
        detector=DetectorSpec(masks=masks),
    )


def _each(**values: Any) -> Change:
    return lambda content: [item.update(values) for item in content["annotations"]]


# --- The picture of an annotation ---


@pytest.mark.parametrize(
    ("files", "named", "expected"),
    [
        (("a.jpg", "a.png"), "a.jpg", "a.jpg"),
        (("a.jpg", "a.png"), "A.PNG", "a.png"),
        (("a.jpg", "a.webp"), "C:\\photos\\a.jpg", "a.jpg"),
        (("a.jpg", "a.png"), "", r"a\.xml: is it of a\.jpg or of a\.png\? Move the other one"),
        (("a.jpg", "a.png"), "a", r"is it of a\.jpg or of a\.png"),
        (("a.jpg", "a.png"), "other.jpg", r"is it of a\.jpg or of a\.png"),
        (("a.png",), "a.jpg", "a.png"),
        (("a.JPG",), "a.jpg", "a.JPG"),
        (("photo.jpg",), "photo.jpg", "photo.jpg"),
        (("a.jpg", "photo.jpg"), "photo.jpg", r"is it of a\.jpg or of photo\.jpg"),
        (("a.jpg", "b.jpg"), "b.jpg", "a.jpg"),  # which has an annotation of its own: copied from there
    ],
)
def test_the_picture_of_an_xml_file(tmp_path: Path, files: tuple[str, ...], named: str, expected: str) -> None:
    for number, file in enumerate((*files, *(() if "b.jpg" in files else ("b.jpg",)))):
        picture(tmp_path / file, number)
    (tmp_path / "a.xml").write_text(voc("a", CAT).replace("a.png", named))
    (tmp_path / "b.xml").write_text(voc("b", CAT).replace("b.png", "b.jpg"))
    if "." not in expected or "\\" in expected:
        with pytest.raises(ResnestError, match=expected):
            _read(tmp_path)
        return
    samples = _read(tmp_path)
    assert samples.keys[0] == expected
    stale = "1 annotations contain another picture's name than their own"
    assert (stale in samples.describe()) == (named == "b.jpg")


def test_pictures_in_a_folder_of_their_own_and_masks_beside_the_annotations(tmp_path: Path) -> None:
    for stem in "ab":
        picture(tmp_path / f"{stem}.png")
        (tmp_path / f"{stem}.xml").write_text(voc(stem, CAT).replace(".png", ".jpg"))
        picture(tmp_path / "images" / f"{stem}.jpg")
    assert _read(tmp_path).read(0)[:2] == b"\xff\xd8"
    (tmp_path / "a.xml").write_text(voc("a", CAT).replace("a.png", ""))
    (tmp_path / "b.xml").write_text(voc("b", CAT).replace("b.png", ""))
    with pytest.raises(ResnestError, match=r"are the pictures those in .* or those in .*\? Leave one folder"):
        _read(tmp_path)


def test_two_folders_with_other_pictures_of_the_same_names(tmp_path: Path) -> None:
    path = instances(tmp_path, "val", many())
    pictures(tmp_path / "images", many())
    assert len(_read(path)) == 10  # the same pictures twice
    for number in range(10):
        picture(tmp_path / "images" / f"{number}.png", 13)
    with pytest.raises(ResnestError, match=r"image 0\.png is in \S+images and, another file, in \S+images/val"):
        _read(path)


# --- Lists of pictures ---


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["photo (1)", "photo (2)"], ["photo (1)", "photo (2)"]),
        (["photo (1).png", "JPEGImages/photo (2).png"], ["photo (1)", "photo (2)"]),
        (["photo (1)  1", "photo (2) -1", "a  0"], ["photo (1)", "photo (2)", "a"]),
        (["a 1"], ["a 1"]),
        (["./JPEGImages/photo (1).png ./Annotations/photo (1).xml"], ["photo (1)"]),
        (["C:\\data\\a.PNG", "", "  b.2  "], ["a", "b.2"]),
        (["b.2 1"], ["b.2"]),
        (["a", "a.png"], r"val\.txt: lines 1 and 2 are both of a"),
        (["c 1"], r"val\.txt, line 1: is it 'c 1', or 'c' with 1\? Rename one of them"),
    ],
)
def test_lists(tmp_path: Path, lines: list[str], expected: list[str] | str) -> None:
    for stem in ("photo (1)", "photo (2)", "a 1", "b.2", "c", "c 1", *(["a"] if lines != ["a 1"] else [])):
        picture(tmp_path / "JPEGImages" / f"{stem}.png")
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        (tmp_path / "Annotations" / f"{stem}.xml").write_text(voc(stem, CAT))
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("\n".join(lines), encoding="utf-8-sig")
    if isinstance(expected, str):
        with pytest.raises(ResnestError, match=expected):
            open_split(tmp_path, "val")
    else:
        assert open_split(tmp_path, "val").samples.keys == [f"{stem}.png" for stem in expected]


# --- Marks, names, areas ---


@pytest.mark.parametrize(
    ("mark", "ignored"),
    [
        *((mark, False) for mark in (0, "0", False, None, "false", "No", "Unspecified", 0.0, "0.0", "", "None")),
        *((mark, True) for mark in (1, "1", True, "true", "Yes", 1.0, "1.0", " 1 ")),
    ],
    ids=repr,
)
def test_marks(tmp_path: Path, mark: Any, ignored: bool) -> None:
    samples = _read(_json(tmp_path, lambda content: content["annotations"][0].update(iscrowd=mark)))
    assert samples.objects[0].crowd.tolist() == [ignored]
    assert ("1 crowds or difficult objects are ignored" in samples.describe()) == ignored
    picture(tmp_path / "xml" / "a.png")
    box = voc_object("cat", (1, 1, 9, 9), f"<difficult>{'' if mark is None else mark}</difficult>")
    (tmp_path / "xml" / "a.xml").write_text(voc("a", box))
    assert _read(tmp_path / "xml").objects[0].crowd.tolist() == [ignored]


def test_much_that_is_ignored_is_a_problem(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    content = many()
    for item in content["annotations"][:6]:
        item["iscrowd"] = 1
    for part in ("train", "val"):
        instances(tmp_path, part, content)
    problems = json.loads(cli("doctor", "--data", tmp_path, "--json").out)["problems"]
    line = "train: 6 of 10 objects are crowds (iscrowd) or difficult, which are ignored: set that to 0"
    assert sum(problem.startswith(line) for problem in problems) == 1
    train = open_dataset(tmp_path).train.for_training(find_recipe("detect_small"))
    assert "6 images with 6 crowds or difficult objects and no other object are not trained on" in train.describe()


def test_names_are_stripped(tmp_path: Path) -> None:
    names = [{"id": 2, "name": "\tdog\n"}, {"id": 9, "name": " große Katze "}]
    assert _read(_json(tmp_path, lambda content: content.update(categories=names))).class_names == (
        "dog",
        "große Katze",
    )


AREAS: dict[str, tuple[Any, bool]] = {
    "as it is": (100, False),
    "of pixels with borders": (121, False),
    "of its circle": (78.5, False),
    "negative": (-100, True),
    "zero": (0, True),
    "not a number": (float("nan"), True),
    "infinite": (float("inf"), True),
    "huge": (1e12, True),
    "of the image": (WIDTH * HEIGHT, True),
    "of the larger image": (140, True),
    "a hundredth": (1, True),
    "none": (None, False),
}


@pytest.mark.parametrize(("area", "replaced"), AREAS.values(), ids=AREAS)
@pytest.mark.parametrize("outlined", [True, False], ids=["mask", "box"])
def test_areas(tmp_path: Path, area: Any, replaced: bool, outlined: bool) -> None:
    """Of a square of 10 x 10."""
    content = many()
    _each(area=area, **({} if outlined else {"segmentation": []}))(content)
    following = {one["id"]: other["id"] for one, other in itertools.pairwise(content["categories"] * 2)}
    content["annotations"] += [  # of another class, as what repeats an object is left out
        {**item, "id": 50 + item["id"], "category_id": following[item["category_id"]]}
        for item in content["annotations"]
    ]
    samples = _read(_json(tmp_path, lambda _: None, content))
    assert samples.objects[3].areas.tolist() == [100 if replaced or area is None else area] * 2
    note = "20 areas that box or mask contradicts are computed from these"
    assert (note in samples.describe()) == replaced


def test_areas_of_masks_within_their_boxes_count(tmp_path: Path) -> None:
    """Also of several polygons, of run lengths, and of outlines that the file lacks."""
    content = many()
    shapes: list[Any] = [
        [[4, 4, 14, 4, 4, 14]],
        [[4, 4, 8, 4, 8, 14, 4, 14], [10, 4, 14, 4, 14, 14, 10, 14]],
        {"size": [HEIGHT, WIDTH], "counts": [4 * HEIGHT + 4, 10, 9 * HEIGHT - 10, 10, 27 * HEIGHT - 14]},
        [],
    ]
    areas = [50, 80, 20, 15]
    for item, shape, area in zip(content["annotations"], shapes, areas, strict=False):
        item.update(segmentation=shape, area=area)
    content["annotations"] = content["annotations"][:4]
    samples = _read(_json(tmp_path, lambda _: None, content))
    assert [samples.objects[index].areas.tolist() for index in range(4)] == [[area] for area in areas]
    assert "areas" not in samples.describe()
    for item in content["annotations"]:
        item["area"] = None
    samples = _read(_json(tmp_path, lambda _: None, content))
    assert [samples.objects[index].areas.tolist() for index in range(4)] == [[50], [80], [20], [100]]


# --- Outlines that cannot be used ---

RUNS = {"size": [HEIGHT, WIDTH], "counts": [1, 2]}
DEFECTS: list[tuple[Any, str]] = [
    ([[1, 1, 2, 2]], "polygon 0 has 2 points: three points are needed, each x and y"),
    ([[4, 4, 14, 4, 14, 14, 4, 14], [1, 1]], "polygon 1 has 1 points: three points"),
    ([[1, 1, 2, 2, 3, 3, 4]], "polygon 0 has 7 coordinates"),
    ([1, 1, 2, 2, 3, 3], "polygon 0 is not a list of coordinates"),
    ([[1, 1, 2, "2", 3, 3]], "polygon 0 has a coordinate that is not a number"),
    ([[1, 1, 2, float("inf"), 3, 3]], "a polygon has a coordinate that is not finite"),
    ([[1, 1, 2, float("nan"), 3, 3]], "a polygon has a coordinate that is not finite"),
    ([[0, 0, 1e9, 0, 1e9, 1e9]], "a polygon has the coordinate 1e+09: those of pixels are 1e+06 at most"),
    ({"counts": "11"}, "RLE needs counts and size"),
    ({**RUNS, "size": [HEIGHT, 3]}, "RLE of 3 x 30 pixels (width x height) in an image of 40 x 30 pixels"),
    (RUNS, "RLE: a mask of 30 x 40 pixels"),
    ({**RUNS, "counts": "~~"}, "RLE: '~~' is not a packed mask"),
    ("polygon", "segmentation is neither a list of polygons nor run lengths"),
]


def test_the_doctor_lists_every_outline_that_cannot_be_used(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    content = many()
    content["images"] += [
        {**content["images"][0], "id": number, "file_name": f"{number}.png"} for number in range(10, 16)
    ]
    content["annotations"] = [{**content["annotations"][0], "id": number, "image_id": number} for number in range(16)]
    for item, (outline, _) in zip(content["annotations"], DEFECTS, strict=False):
        item["segmentation"] = outline
    for part in ("train", "val"):
        instances(tmp_path, part, content)
    problems = json.loads(cli("doctor", "--data", tmp_path, "--json").out)["problems"]
    for number, (_, defect) in enumerate(DEFECTS):
        found = [line for line in problems if line.startswith(f"train: {number}.png: annotation {number}: {defect}")]
        assert len(found) == 1, defect
        assert found[0].endswith(": its outline cannot be used")
    splits = open_dataset(tmp_path)
    assert f"{len(DEFECTS)} and {len(DEFECTS)} outlines cannot be used" in splits.describe()
    assert isinstance(splits.train, DetectionSamples)
    assert splits.train.objects[0].segmentations == [None]
    assert len(splits.train.for_training(find_recipe("detect_small"))) == 16
    with pytest.raises(
        ResnestError, match=r"13 of 16 objects have no segmentation, as annotation 0 of 0\.png \(polygon"
    ):
        splits.train.for_training(find_recipe("instances_small"))


def test_validation_objects_need_outlines_too(tmp_path: Path) -> None:
    """Before anything starts, as training objects do."""
    for part, without in (("train", 0), ("val", 5)):
        content = many()
        for item in content["annotations"][:without]:
            item["segmentation"] = []
        instances(tmp_path / "data", part, content)
    message = r"validation images: 5 of 10 objects have no segmentation, as annotation 0 of 0\.png: choose a detector"
    with pytest.raises(ResnestError, match=message):
        train("instances_small", data=tmp_path / "data", out=tmp_path / "run", settings=TINY_RUN)
    assert not (tmp_path / "run").exists()
    samples = open_split(tmp_path / "data").samples
    card = _card(masks=True)
    with pytest.raises(ResnestError, match="it: 5 of 10 objects have no segmentation"):
        samples.aligned(card, "it")
    content = many()
    _each(segmentation=[])(content)
    (tmp_path / "boxes").mkdir()
    assert len(_read(_json(tmp_path / "boxes", lambda _: None, content)).aligned(card, "it")) == 10  # box AP alone


# --- Boxes in other units ---


def _percent(item: dict[str, Any]) -> list[float]:
    x, y, wide, high = item["bbox"]
    return [100 * x / 128, 100 * y / 96, 100 * wide / 128, 100 * high / 96]


UNITS: dict[str, tuple[Callable[[dict[str, Any]], list[float]], str]] = {
    "fractions": (lambda item: [side / 100 for side in _percent(item)], "fractions of the image's width and height"),
    "centres": (
        lambda item: [
            (item["bbox"][0] + item["bbox"][2] / 2) / 128,
            (item["bbox"][1] + item["bbox"][3] / 2) / 96,
            *[side / 100 for side in _percent(item)[2:]],
        ],
        "fractions of the image's width and height",
    ),
    "percent": (_percent, "percent of the image's width and height"),
    "corners": (
        lambda item: [*item["bbox"][:2], item["bbox"][0] + item["bbox"][2], item["bbox"][1] + item["bbox"][3]],
        "corners x1, y1, x2, y2 in place of x, y, width, height",
    ),
}


def _spread(*, outlined: bool) -> dict[str, Any]:
    """Boxes on all of six images of 128 x 96."""
    images = [{"id": n, "file_name": f"{n}.png", "width": 128, "height": 96} for n in range(6)]
    boxes = [[4 + 43 * k + n, 7 * n + 5 * k, 20 + n, 22 - n] for n in range(6) for k in range(3)]
    objects = [
        {"id": n, "image_id": n // 3, "category_id": 2, "bbox": box}
        | ({"segmentation": [_polygon(box)]} if outlined else {})
        for n, box in enumerate(boxes)
    ]
    return {"images": images, "annotations": objects, "categories": [{"id": 2, "name": "dog"}]}


def _polygon(box: list[int]) -> list[int]:
    x, y, wide, high = box
    return [x, y, x + wide, y, x + wide, y + high, x, y + high]


@pytest.mark.parametrize("outlined", [True, False], ids=["masks", "boxes"])
@pytest.mark.parametrize(("change", "what"), UNITS.values(), ids=UNITS)
def test_units_of_boxes(
    tmp_path: Path, change: Callable[[Any], list[float]], what: str, outlined: bool, cli: Callable[..., Outcome]
) -> None:
    for part in ("train", "val"):
        content = _spread(outlined=outlined)
        instances(tmp_path / "right", part, content)
        for item in content["annotations"]:
            item["bbox"] = change(item)
        instances(tmp_path / "wrong", part, content)
    line = f"the 18 boxes look like {what}: write x, y, width and height (VOC: corners) in pixels"
    problems = json.loads(cli("doctor", "--data", tmp_path / "wrong", "--json").out)["problems"]
    assert [problem for problem in problems if "same picture" not in problem] == [f"train: the 18 boxes, val: {line}"]
    splits = open_dataset(tmp_path / "wrong")
    assert f"boxes look like {what}" in splits.describe()
    with pytest.raises(ResnestError, match=re.escape(f"training images: {line}")):
        splits.train.for_training(find_recipe("detect_small"))
    right = open_dataset(tmp_path / "right")
    assert "look like" not in right.describe()
    assert len(right.train.for_training(find_recipe("detect_small"))) == 6


def test_voc_with_sizes_and_with_fractions(tmp_path: Path) -> None:
    for name, boxes in (("sizes", [(21, 15, 10, 12), (3, 3, 9, 9)]), ("fractions", [(0.25, 0.5, 0.5, 0.75)])):
        for stem in "ab":
            picture(tmp_path / name / f"{stem}.png")
            (tmp_path / name / f"{stem}.xml").write_text(voc(stem, "".join(voc_object("cat", box) for box in boxes)))
        what = "x, y, width, height in place of corners" if name == "sizes" else "fractions of the image's width"
        with pytest.raises(ResnestError, match=f"boxes look like {what}"):
            _read(tmp_path / name).trainable()


# --- Parts, and classes that are not used ---


def test_one_part_of_a_roboflow_export(tmp_path: Path) -> None:
    for part in ("train", "valid", "test"):
        pictures(tmp_path / part, many())
        write(tmp_path / part / "_annotations.coco.json", many())
    splits = open_split(tmp_path / "test")
    assert "10 images, all there are" in splits.describe
    assert splits.samples.read(0) == (tmp_path / "test" / "0.png").read_bytes()


def test_a_class_that_no_object_has_need_not_be_known(tmp_path: Path) -> None:
    """Roboflow's class 0, which is above all others."""
    content = many()
    content["categories"].insert(0, {"id": 0, "name": "animals"})
    samples = _read(_json(tmp_path, lambda _: None, content))
    assert samples.class_names == ("animals", "dog", "cat")
    card = _card()
    aligned = samples.aligned(card, "it")
    assert (aligned.class_names, aligned.category_ids) == (("cat", "dog"), (9, 2))
    assert aligned.objects[0].labels.tolist() == [0]
    assert aligned.labels[0].tolist() == [True, False]
    content["annotations"][4]["category_id"] = 0
    with pytest.raises(ResnestError, match="it has 1 class that the model does not know: animals"):
        _read(write(tmp_path / "all.json", content)).aligned(card, "it")


# --- Pictures with an EXIF orientation ---


@pytest.mark.parametrize("exif", ["auto", "upright", "stored"])
def test_the_doctor_counts_orientations_and_says_how_they_are_read(
    tmp_path: Path, exif: str, cli: Callable[..., Outcome]
) -> None:
    """Turned by half, either fits; on their side, the annotated size is that of the stored pixels."""
    for part, orientation in (("train", 3), ("val", 6)):
        content = many()
        instances(tmp_path, part, content)
        for number in (0, 1, 2):
            image = Image.new("RGB", (WIDTH, HEIGHT), (9 * number, 9, orientation))
            image.getexif()[0x0112] = orientation
            image.save(tmp_path / "images" / part / f"{number}.png", exif=image.getexif())
    report = json.loads(cli("doctor", "--data", tmp_path, "--exif", exif, "--json").out)
    upright, stored = {"auto": (3, 3), "upright": (3, 0), "stored": (0, 6)}[exif]
    rule = f"(data.exif={exif}{': by their annotated size' if exif == 'auto' else ''})"
    assert (
        f"{upright + stored} images have an EXIF orientation: {upright} read upright, {stored} as stored {rule}"
        in report["notes"]
    )
    unfit = [problem for problem in report["problems"] if problem.endswith("and data.exif=upright")]
    assert len(unfit) == (3 if exif == "upright" else 0)
    splits = open_dataset(tmp_path, exif=exif)
    assert splits.train.decode(0).getpixel((0, 0)) == (0, 9, 3)
    assert splits.train.exif == exif
    assert ("data.exif=" in splits.describe()) == (exif != "auto")


def test_an_unknown_way_up(tmp_path: Path) -> None:
    with pytest.raises(ResnestError, match=r'`exif="left"`: expected auto, upright, stored'):
        open_dataset(tmp_path, exif="left")


@pytest.mark.parametrize("exif", ["auto", "stored"])
def test_a_run_is_evaluated_as_it_was_trained(tmp_path: Path, exif: str) -> None:
    (tmp_path / "run").mkdir()
    recipe = override(find_recipe("detect_small"), [f"data.exif={exif}"])
    (tmp_path / "run" / "recipe.yaml").write_text(to_yaml(recipe))
    (tmp_path / "run" / "model.onnx").write_text("")
    assert exif_of_run(tmp_path / "run") == exif_of_run(tmp_path / "run" / "model.onnx") == exif
    assert exif_of_run(Path("resnest50")) == "auto"


@pytest.mark.parametrize("model", ["resnest50", "saved"])
def test_what_lies_around_other_models_is_not_theirs(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Published weights by their name, and a folder beside somebody's recipe and run.json."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "saved").mkdir()
    (tmp_path / "recipe.yaml").write_text(to_yaml(override(find_recipe("detect_small"), ["data.exif=stored"])))
    (tmp_path / "run.json").write_text('{"data": "photos"}')
    assert exif_of_run(Path(model)) == "auto"
    assert account_of(model) == {}
