"""The doctor on data with masks: what is wrong is named with its file, and figures to choose settings by."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import Outcome
from masked import HEIGHT, SEGMENTS, WIDTH, folders, ids, mask, panoptic, panoptic_json, picture, text
from resnest.runtime.palette import encode_ids
from scenes import coco_json, instances

Run = Callable[..., Outcome]


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    root = folders(tmp_path, train=6, val=2, classes="sky\nroad\ntree\nsea\npole\nfog\n")
    masks = tmp_path / "masks"
    only_sky = np.zeros((HEIGHT, WIDTH), np.uint8)
    only_sky[0, :2] = 4
    for number in (0, 1, 2):
        Image.fromarray(only_sky).save(masks / "train" / f"{number}.png")
    Image.fromarray(only_sky + np.uint8(255)).save(masks / "train" / "2.png")  # 0 becomes 255, 4 becomes 3
    Image.fromarray(only_sky | np.uint8(255)).save(masks / "train" / "3.png")
    Image.fromarray(only_sky + np.uint8(6)).save(masks / "train" / "4.png")
    mask(masks / "train" / "5.png", size=(41, 30))
    picture(tmp_path / "images" / "val" / "6.png", 0)  # the same as train's 0
    return root


PROBLEMS = [
    "train: 4.png: its mask 4.png: has the values 6, 10, which no class has, in 1200 of 1200 pixels",
    "train: 5.png: has 40 x 30 pixels, but is annotated as 41 x 30 by its mask 5.png",
    "val: 6.png is the same picture as train: 0.png",
    "only the validation split has pixels of road, tree: they are never predicted",
]
NOTES = [
    "only the training split has pixels of sea, pole: they are not evaluated",
    "no mask has a pixel of fog",
    "1 training mask has only ignored pixels: 3.png",
    "training pixels by class: sky 99.8%, pole 0.2%, sea 0.08%, road 0.0%, tree 0.0%, fog 0.0%",
    "less than 0.5% of the training pixels show sea, pole",
    "50.0% of the training and 1.0% of the validation pixels do not count",
]


def test_everything_that_is_wrong_is_named(broken: Path, cli: Run) -> None:
    outcome = cli("doctor", "--data", broken, "--json")
    report = json.loads(outcome.out)
    assert outcome.code == 2
    assert report["problems"] == PROBLEMS
    assert report["notes"] == NOTES
    assert report["classes"]["pole"] == {"train": 2, "val": 0}
    assert report["classes"]["road"] == {"train": 0, "val": 2}
    assert report["pixels"]["pole"]["train"] == pytest.approx(4 / 2402)
    assert report["sizes"] == "40 x 30 to 40 x 30 pixels, median 30 short side"
    told = cli("doctor", "--data", broken, "--task", "segmentation", "--format", "masks").out
    assert f"problem: {PROBLEMS[0]}" in told
    assert "4 problems" in told


def test_nothing_wrong(tmp_path: Path, cli: Run) -> None:
    outcome = cli("doctor", "--data", folders(tmp_path))
    assert outcome.code == 0
    assert outcome.out.endswith("no problems found\n")


def test_masks_of_0_and_255(tmp_path: Path, cli: Run) -> None:
    """255 is the second class; where it is listed as one that does not count, nothing can be trained."""
    folders(tmp_path, classes="background\ncrack\n")
    for path in (tmp_path / "masks").rglob("*.png"):
        Image.fromarray(np.uint8(255) * (np.arange(1200).reshape(HEIGHT, WIDTH) < 300)).save(path)
    for classes in ("background\ncrack\n", "0 background\n255 crack\n"):
        text(tmp_path / "classes.txt", classes)
        outcome = cli("doctor", "--data", tmp_path)
        assert "background 75.0%, crack 25.0%" in outcome.out
        assert ("255 beside 0 alone is 'crack'" in outcome.out) == (classes[0] == "b")
        assert outcome.code == 0
    text(tmp_path / "classes.txt", "background\ncrack\n255 ignore\n")
    outcome = cli("doctor", "--data", tmp_path)
    assert "masks (training: all 4 masks show 'background' alone: nothing can be learned" in outcome.out
    assert "problem: all labelled training pixels show background: nothing can be trained. Where others" in outcome.out
    assert outcome.code == 2


def test_panoptic_maps_are_compared_with_their_json(tmp_path: Path, cli: Run) -> None:
    content = panoptic_json()
    segments = content["annotations"][0]["segments_info"]
    segments[0]["area"] += 5
    segments[2]["bbox"] = [4, 6, 10, 15]
    del content["annotations"][2]["segments_info"][4]
    panoptic(tmp_path, content, "train2017")
    path = panoptic(tmp_path)
    Image.fromarray(encode_ids(ids(SEGMENTS[:4]))).save(path.with_suffix("") / "2.png")
    Image.new("RGB", (40, 31)).save(tmp_path / "val2017" / "0.png")
    for part in ("train", "val"):
        Image.new("RGB", (WIDTH, HEIGHT), (0, len(part), 9)).save(tmp_path / f"{part}2017" / "1.png")
    outcome = cli("doctor", "--data", tmp_path, "--json")
    report = json.loads(outcome.out)
    assert outcome.code == 2
    area = np.count_nonzero(ids() == 70000)
    assert report["problems"] == [
        "train: 2.png: its map 2.png: segment 9 is in the PNG and not in the json",
        "val: 0.png: has 40 x 31 pixels, but is annotated as 40 x 30",
        "val: 2.png: its map 2.png: segment 9 is in the json and has no pixel in the PNG",
        f"train: 0.png: segment 70000: the json has {area + 5} pixels, the map has {area}",
        "train: 0.png: segment 5: the json has bbox (4, 6, 10, 15), in the map it is (4, 6, 10, 14)",
    ]
    assert report["notes"][:4] == [
        "2 classes of things, 2 of stuff",
        "fewer than 10 training images show cat, dog, sea, sky",
        "1 training and 1 validation images have no things: they are used for stuff",
        "4 crowds, which are ignored as objects",
    ]
    assert report["classes"]["sea"] == {"train": 2, "val": 1}
    assert "objects an image: median 2.5, 3 at most" in report["notes"]


def test_other_kinds_are_pointed_to(tmp_path: Path, cli: Run) -> None:
    for part in ("train", "val"):
        instances(tmp_path, part, coco_json())
        panoptic(tmp_path, part=f"{part}2017")
    told = "there are masks too (panoptic): --task panoptic looks at them"
    assert told in cli("doctor", "--data", tmp_path).out
    assert told not in cli("doctor", "--data", tmp_path, "--task", "detection").out
    assert "(panoptic)" in cli("doctor", "--data", tmp_path, "--task", "panoptic").out.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "panoptic"), "--html, --model, --exif, --stats, --in-chans and --value-range need --data"),
        (("--data", "x", "--task", "boxes"), "'boxes' is not a known task. Known: classification, detection, segm"),
        (("--data", "x", "--format", "mask"), "'mask' is not a known data format. Did you mean 'masks'"),
    ],
)
def test_wrong_arguments(cli: Run, arguments: tuple[str, ...], message: str) -> None:
    outcome = cli("doctor", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
