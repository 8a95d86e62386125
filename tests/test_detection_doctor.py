"""The doctor on data with objects: what is wrong is named with its annotation, and figures to choose settings by."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from conftest import Outcome
from scenes import coco_json, instances

BOX = {"category_id": 1, "bbox": [2, 2, 20, 10]}

TRAIN: list[dict[str, Any]] = [
    {"image_id": 1, **BOX},
    {"image_id": 1, **BOX, "bbox": [30, 20, 20, 5]},
    {"image_id": 1, **BOX, "bbox": [30, 20, 10.5, 5]},  # half a pixel: many count from 1
    {"image_id": 1, **BOX, "bbox": [50, 20, 5, 5]},
    {"image_id": 2, **BOX, "bbox": [3, 3, 0, 5]},
    {"image_id": 2, **BOX, "segmentation": [[2, 2, 22, 2, 22, 12]]},
    {"image_id": 2, **BOX, "segmentation": [[2, 2, 18, 2, 18, 12]]},
    {"image_id": 2, **BOX, "segmentation": {"size": [30, 40], "counts": [1200]}},
    {"image_id": 2, **BOX, "category_id": 3, "iscrowd": 1},
    *[{"image_id": 3, "category_id": 1, "bbox": [1 + place / 4, 1, 5, 5]} for place in range(101)],
    {"image_id": 4, **BOX},
    {"image_id": 5, "category_id": 2, "bbox": [2, 2, 5, 5]},
    {"image_id": 6, **BOX},
]
VAL: list[dict[str, Any]] = [{"image_id": 1, **BOX}, {"image_id": 2, "category_id": 3, "bbox": [2, 2, 5, 5]}]

PROBLEMS = [
    "only the validation split has objects of emu: they are never predicted",
    "train: 1.png: annotation 1: box (30, 20, 50, 25) stands out of the image of 40 x 30",
    "train: 1.png: annotation 3: box (50, 20, 55, 25) lies outside the image of 40 x 30: left out of training",
    "train: 2.png: annotation 4: box (3, 3, 3, 8) has no area: left out of training",
    "train: 2.png: annotation 6: its mask lies within (2, 2, 18, 12), its box is (2, 2, 22, 12): 4 pixels apart",
    "train: 2.png: annotation 7: its mask has no pixel",
    "val: annotation id 0 occurs 2 times",
    "train: 1.png is listed 2 times",
    "train: 4.png: cannot be read (No such file or directory)",
    "train: 5.png: has 40 x 30 pixels, but is annotated as 40 x 31",
    "val: 1.png (cat) is the same picture as train: 3.png (cat)",
]
NOTES = [
    "only the training split has objects of dog: they are not evaluated",
    "no split has an object of fox",
    "fewer than 10 training images show cat, dog",
    "1 training image has no objects: left out of training unless detection.keep_empty is set",
    "1 crowd or difficult object, ignored",
    "3 of 115 objects have masks",
    "objects an image: median 1, 101 at most: raise detector.max_detections above 100",
    "objects by area as COCO has it: 100% small, 0% medium, 0% large",
    "side of an object, the root of its box's area: 5 to 14, median 5 pixels; 129 to 377, median 133 with the short"
    " side of images at 800 (see detector.anchor_sizes, and detection.short for objects that are too small)",
    "7 images are nearly uniform, such as 1.png: not searched for near duplicates",
]


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    for part, objects, count in (("train", TRAIN, 7), ("val", VAL, 2)):
        (tmp_path / "images" / part).mkdir(parents=True)
        images = [{"id": n, "file_name": f"{n}.png", "width": 40, "height": 30} for n in range(1, count + 1)]
        for item in images:
            if (part, item["id"]) != ("train", 4):
                colour = 99 if (part, item["id"]) in (("train", 3), ("val", 1)) else 10 * int(item["id"]) + len(part)
                Image.new("RGB", (40, 30), (colour, 0, 0)).save(tmp_path / "images" / part / str(item["file_name"]))
        if part == "train":
            images[4]["height"] = 31
            images[5]["file_name"] = "1.png"
        numbered = [{**item, "id": place if part == "train" else 0} for place, item in enumerate(objects)]
        categories = [{"id": n, "name": name} for n, name in enumerate(("cat", "dog", "emu", "fox"), 1)]
        path = tmp_path / "annotations" / f"instances_{part}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"images": images, "annotations": numbered, "categories": categories}))
    return tmp_path


def test_everything_that_is_wrong_is_named(broken: Path, cli: Callable[..., Outcome]) -> None:
    outcome = cli("doctor", "--data", broken, "--json")
    report = json.loads(outcome.out)
    assert outcome.code == 2
    assert sorted(report["problems"]) == sorted(PROBLEMS)
    assert report["notes"] == NOTES
    assert report["classes"]["cat"] == {"train": 5, "val": 1}
    text = cli("doctor", "--data", broken).out
    assert f"problem: {PROBLEMS[0]}" in text
    assert f"{len(PROBLEMS)} problems" in text


@pytest.mark.parametrize("box", [[10, 10, -3, 5], [10, 10, 5, -3], [10, 10, -3, -5], [10, 10, 0, 0], [90, 90, 5, 5]])
def test_boxes_without_an_area_cause_no_warning(box: list[int], tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    for part in ("train", "val"):
        content = coco_json()
        content["annotations"].append({"id": 900, "image_id": 3, "category_id": 9, "bbox": box})
        instances(tmp_path, part, content)
    outcome = cli("doctor", "--data", tmp_path)
    assert "annotation 900: box (" in outcome.out
    assert "Warning" not in outcome.out + outcome.err
