"""Data sets of keypoints: COCO json and YOLO-pose, what is read, and what is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Outcome
from posed import CATEGORY, NAMES, SIDE, write_coco, write_yolo
from resnest.data.checks import check_dataset
from resnest.data.sources import open_dataset
from resnest.errors import ResnestError
from resnest.keypoints.coco import read_coco
from resnest.keypoints.data import KeypointSamples


def opened(path: Path) -> Any:
    return open_dataset(path, task="keypoints")


def test_coco_json(tmp_path: Path) -> None:
    splits = opened(write_coco(tmp_path / "tiles"))
    train = splits.train
    assert isinstance(train, KeypointSamples)
    assert (splits.format, len(train), len(splits.val)) == ("coco-keypoints", 24, 12)
    assert (train.class_names, train.thing, train.layout.pairs) == (tuple(NAMES), "tile", ((0, 1),))
    assert train.layout.skeleton == ((0, 2), (2, 1))
    assert train.counts().tolist() == [24, 24, 24]
    crop, view = train.example(1)
    assert view.visible.tolist() == [2, 2, 1]
    left, top = np.floor(view.points[0]).astype(int)
    pixels = np.asarray(crop)
    assert pixels[top + 1, left + 1].tolist() == [60, 200, 60]  # half a pixel is added to COCO's points
    assert pixels[top - 1, left - 1].max() < 60


def test_objects_of_one_picture_are_held_out_together(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "tiles")
    splits = opened(folder / "annotations" / "keypoints_train.json")
    assert set(splits.train.keys).isdisjoint(splits.val.keys)
    assert "groups by picture" in splits.describe()


@pytest.mark.parametrize("numbers", [2, 3])
def test_yolo_pose_is_the_same_as_coco(numbers: int, tmp_path: Path) -> None:
    coco = opened(write_coco(tmp_path / "coco", train=6, val=4))
    yolo = opened(write_yolo(tmp_path / "yolo", numbers=numbers, yaml=f"kpt_names: [{', '.join(NAMES)}]\n"))
    assert yolo.format == "yolo-pose" or yolo.train.class_names == coco.train.class_names
    for ours, theirs in ((yolo.train, coco.train), (yolo.val, coco.val)):
        assert len(ours) == len(theirs)
        assert ours.people.points == pytest.approx(theirs.people.points, abs=1e-3)
        assert ours.boxes == pytest.approx(theirs.boxes, abs=1e-3)
        assert ours.people.visible.min() == (1 if numbers == 3 else 2)


YAML: dict[str, tuple[str, tuple[str, ...], Any]] = {  # lines, names, pairs
    "no names": ("", ("1", "2", "3"), None),
    "flip_idx": ("flip_idx: [1, 0, 2]\n", ("1", "2", "3"), ((0, 1),)),
    "nothing swaps": ("flip_idx: [0, 1, 2]\n", ("1", "2", "3"), ()),
    "names by class": ("kpt_names: {0: [l_tip, r_tip, stem]}\n", ("l_tip", "r_tip", "stem"), ((0, 1),)),
}


@pytest.mark.parametrize(("lines", "names", "pairs"), YAML.values(), ids=YAML)
def test_names_and_pairs_of_yolo(lines: str, names: tuple[str, ...], pairs: Any, tmp_path: Path) -> None:
    train = opened(write_yolo(tmp_path / "yolo", yaml=lines)).train
    assert (train.class_names, train.layout.pairs) == (names, pairs)
    assert ("nothing is mirrored" in train.describe()) == (pairs is None)


BAD_YAML: dict[str, tuple[str, str]] = {
    "flip pairs that are not pairs": ("flip_idx: [1, 2, 0]\n", "flip_idx has no pairs: 0 becomes 1, and that 2"),
    "flip_idx of other points": ("flip_idx: [0, 1, 3]\n", "flip_idx must have each number from 0 to 2 once"),
    "names of other points": ("kpt_names: [a, b]\n", "kpt_names has 2 names, and kpt_shape 3 points"),
    "a shape": ("kpt_shape: [3, 4]\n", "kpt_shape .* 2 or 3 numbers of each"),
}


@pytest.mark.parametrize(("lines", "message"), BAD_YAML.values(), ids=BAD_YAML)
def test_yaml_that_is_refused(lines: str, message: str, tmp_path: Path) -> None:
    folder = write_yolo(tmp_path / "yolo")
    text = (folder / "data.yaml").read_text()
    kept = [line for line in text.splitlines() if line.partition(":")[0] != lines.partition(":")[0]]
    (folder / "data.yaml").write_text("\n".join(kept) + "\n" + lines)
    with pytest.raises(ResnestError, match=message):
        opened(folder)


BAD_LINES: dict[str, tuple[str, str]] = {
    "a box alone": ("0 0.5 0.5 0.2 0.2", "line 1 has 5 numbers: expected 14, a class, a box of 4 and 3 points of 3"),
    "a point too few": ("0 0.5 0.5 0.2 0.2 0.4 0.4 2 0.5 0.5 2", "line 1 has 11 numbers: expected 14"),
    "visibility 3": ("0 .5 .5 .2 .2 .4 .4 2 .5 .5 3 .5 .5 2", "line 1: visibility 3: expected 0 "),
    "pixels": ("0 32 32 10 10 30 30 2 32 32 2 31 31 2", "line 1: 32 is no fraction of the picture"),
    "a word": ("0 .5 .5 .2 .2 .4 x 2 .5 .5 2 .5 .5 2", "is not a class number and fractions"),
    "a class": ("4 .5 .5 .2 .2 .4 .4 2 .5 .5 2 .5 .5 2", "line 1: class 4, but .* has 1 class: 0 to 0"),
}


@pytest.mark.parametrize(("line", "message"), BAD_LINES.values(), ids=BAD_LINES)
def test_yolo_lines_that_are_refused(line: str, message: str, tmp_path: Path) -> None:
    folder = write_yolo(tmp_path / "yolo")
    (folder / "labels/train/01.txt").write_text(line + "\n")
    with pytest.raises(ResnestError, match=message) as caught:
        opened(folder)
    assert "01.txt" in str(caught.value)


Change = Callable[[dict[str, Any]], None]


def _of_another_kind(content: dict[str, Any], category: dict[str, Any], points: Any = None) -> None:
    content["categories"].append(category)
    first = content["annotations"][0]
    first.update(category_id=category["id"], keypoints=points or first["keypoints"])


def _point(*numbers: float) -> Change:
    return lambda content: content["annotations"][0].update(keypoints=[*numbers, *[5, 5, 2] * 2])


BAD_COCO: dict[str, tuple[Change, str]] = {
    "visibility 3": (_point(9, 9, 3), "annotation 1: visibility 3: expected 0"),
    "far outside": (_point(500, 9, 2), r"top_left at \(500.5, 9.5\) is far outside its picture of 64 x 64"),
    "too few numbers": (
        lambda content: content["annotations"][0].update(keypoints=[1, 1, 2]),
        "annotation 1: keypoints has 3 numbers: 3 points have 9",
    ),
    "no number": (lambda content: content["annotations"][0].update(keypoints=[None] * 9), "expected finite numbers"),
    "an image that is not there": (
        lambda content: content["annotations"][0].update(image_id=99),
        "annotation 1: image_id 99 is not among the images",
    ),
    "a skeleton": (
        lambda content: content["categories"][0].update(skeleton=[[1, 4]]),
        "category 'tile': the skeleton name point 4 of 3",
    ),
    "no skeleton": (lambda content: content["categories"][0].update(skeleton=[[1]]), "expected pairs of numbers"),
    "flip pairs": (
        lambda content: content["categories"][0].update(flip_pairs=["top_left", "top_right"]),
        "flip_pairs .*: expected pairs of names",
    ),
    "flip pairs of others": (
        lambda content: content["categories"][0].update(flip_pairs=[["top_left", "tip"]]),
        "flip_pairs name 'tip'",
    ),
    "flip pairs of lists": (
        lambda content: content["categories"][0].update(flip_pairs=[[["top_left"], "top_right"]]),
        "flip_pairs .*: expected pairs of names",
    ),
    "flip pairs twice": (
        lambda content: content["categories"][0].update(flip_pairs=[["top_left", "middle"], ["middle", "top_right"]]),
        "flip pairs name 'middle' twice",
    ),
    "a pair with itself": (
        lambda content: content["categories"][0].update(flip_pairs=[["middle", "middle"]]),
        "flip pairs join 'middle' with itself",
    ),
    "sigmas": (lambda content: content["categories"][0].update(sigmas=[0.1]), "1 sigmas for 3 points"),
    "two kinds": (
        lambda content: _of_another_kind(content, {"id": 4, "name": "leaf", "keypoints": ["tip"]}, [1, 1, 2]),
        "categories 'tile' and 'leaf' have different points",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BAD_COCO.values(), ids=BAD_COCO)
def test_coco_that_is_refused(change: Change, message: str, tmp_path: Path) -> None:
    file = write_coco(tmp_path / "tiles") / "annotations/keypoints_train.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(ResnestError, match=message) as caught:
        read_coco(file)
    assert str(file) in str(caught.value)


NOTES: dict[str, tuple[Change, str]] = {
    "outside": (_point(-9, 9, 2), "1 point lies outside the picture, as of annotation 1"),
    "no sigmas": (lambda content: content["categories"][0].pop("sigmas"), "no sigmas: 0.062 for each point"),
    "no area": (lambda content: content["annotations"][0].pop("area"), "0.53 of the box is the area of 1 object"),
    "a box without area": (
        lambda content: content["annotations"][0].update(bbox=[9, 9, 0, 20]),
        "box around the points is taken for 1 object without one, or with one of no area",
    ),
    "nothing to cut out": (
        lambda content: content["annotations"][0].update(bbox=[9, 9, 0, 0], keypoints=[9, 9, 2, *[0] * 6]),
        "left out: 1 object whose box has no area, nor have the points one",
    ),
    "no box": (lambda content: content["annotations"][0].pop("bbox"), "box around the points is taken for 1 object"),
    "from 0": (
        lambda content: content["categories"][0].update(skeleton=[[0, 2], [2, 1]]),
        "the skeleton has a 0, and is read as counted from 0",
    ),
    "two classes alike": (
        lambda content: _of_another_kind(content, {**CATEGORY, "id": 4, "name": "brick"}),
        "2 categories have the same points",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "note"), NOTES.values(), ids=NOTES)
def test_what_is_decided_is_said(change: Change, note: str, tmp_path: Path) -> None:
    file = write_coco(tmp_path / "tiles") / "annotations/keypoints_train.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    samples = read_coco(file)
    assert note in "; ".join(samples.notes)
    assert samples.layout.skeleton == ((0, 2), (2, 1))


def test_the_doctor(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    folder = write_coco(tmp_path / "tiles")
    file = folder / "annotations/keypoints_train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["keypoints"] = [5, 5, 2] * 3
    content["annotations"][1]["keypoints"] = [0] * 9
    file.write_text(json.dumps(content))
    report = check_dataset(folder, task="keypoints")
    assert "train: 1 object has all points at one place, such as annotation 1" in report.problems
    assert "mirror images of each other: top_left and top_right" in report.notes
    assert "1 object has no annotated point, and is left out" in report.notes
    told = cli("doctor", "--data", folder, "--task", "keypoints")
    assert "3 points of each tile" in told.out


def test_data_of_other_tasks(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    folder = write_yolo(tmp_path / "yolo")
    assert "has kpt_shape: these are key points" in cli("train", "detect_small", "--data", folder).err
    boxes = write_coco(tmp_path / "boxes")
    for file in (boxes / "annotations").iterdir():
        content = json.loads(file.read_text())
        for one in content["annotations"]:
            del one["keypoints"], one["num_keypoints"]
        content["categories"] = [{"id": 3, "name": "tile"}]
        file.write_text(json.dumps(content))
    told = cli("train", "keypoints_small", "--data", boxes).err
    assert "holds no images with keypoints: expected COCO json whose categories have keypoints" in told
    assert SIDE == 64
