"""LVIS's json: both versions, what is known of classes without an object, frequencies, and files that lack them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import Outcome, shared_data
from resnest.data.sources import open_dataset
from resnest.detection.card import Classes, DetectionCard, DetectionPreprocess, DetectorSpec
from resnest.detection.coco import read_coco
from resnest.detection.data import DetectionSamples
from resnest.detection.evaluation import DetectionScorer
from resnest.detection.result import Detections
from resnest.errors import ResnestError
from resnest.spec import Spec

NAMES = ("ant", "bee", "cow", "dog")
FREQUENCY = {"ant": "r", "bee": "c", "cow": "f", "dog": "f"}
Change = Callable[[dict[str, Any]], object]


def content(*, first: bool = False) -> dict[str, Any]:
    """Three images of v1, or of v0.5: ids that are in no order, and one image of COCO's other part."""
    images = [
        {"id": 30, "coco_url": "http://images.cocodataset.org/train2017/000000000030.jpg"},
        {"id": 10, "coco_url": "http://images.cocodataset.org/val2017/000000000010.jpg"},
        {"id": 20, "coco_url": "http://images.cocodataset.org/val2017/000000000020.jpg"},
    ]
    lists = ([[4], [2]], [[3, 1], []], [[], [4]])
    for image, (negative, partial) in zip(images, lists, strict=True):
        image |= {"width": 40, "height": 30, "neg_category_ids": negative, "not_exhaustive_category_ids": partial}
        if first:
            image["file_name"] = f"COCO_val2014_{image['id']:012d}.jpg"
    annotations = [(30, 1), (30, 2), (10, 2), (20, 4)]
    return {
        "images": images,
        "categories": [{"id": k, "name": name, "frequency": FREQUENCY[name]} for k, name in enumerate(NAMES, 1)],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": kind,
                "bbox": [2, 2, 20, 10],
                "area": 200,
                "segmentation": [[2, 2, 22, 2, 22, 12, 2, 12]],
            }
            for number, (image, kind) in enumerate(annotations, 1)
        ],
    }


def write(root: Path, made: dict[str, Any], name: str = "lvis_v1_val.json") -> Path:
    for image in made["images"]:
        file = root / "/".join(image["coco_url"].split("/")[-2:])
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (image["id"] * 7, 90, 0)).save(file)
    (root / "annotations").mkdir(exist_ok=True)
    file = root / "annotations" / name
    file.write_text(json.dumps(made))
    return file


def read(root: Path, change: Change = lambda made: None) -> DetectionSamples:
    made = content()
    change(made)
    return read_coco(write(root, made))


@pytest.mark.parametrize("first", [False, True])
def test_both_versions(tmp_path: Path, first: bool) -> None:
    samples = read_coco(write(tmp_path, content(first=first)))
    assert samples.keys == ["train2017/000000000030.jpg", "val2017/000000000010.jpg", "val2017/000000000020.jpg"]
    assert samples.frequency == ("r", "c", "f", "f")
    assert [samples.objects[k].negative.tolist() for k in range(3)] == [[3], [2, 0], []]
    assert [samples.objects[k].partial.tolist() for k in range(3)] == [[1], [], [3]]
    assert samples.notes == ("LVIS annotates some classes of each image: figures follow its rules (docs/lvis.md)",)
    assert samples.decode(0).getpixel((0, 0))[0] == pytest.approx(210, abs=3)


def test_the_real_file_of_the_first_version(tmp_path: Path) -> None:
    file = shared_data() / "lvis100" / "lvis_val_100.json"
    if not file.is_file():
        pytest.skip(f"needs {file}")
    made = json.loads(file.read_text())
    (tmp_path / "val2017").mkdir()
    for image in made["images"]:
        (tmp_path / "val2017" / image["coco_url"].split("/")[-1]).touch()  # pictures are not opened
    (tmp_path / "annotations").mkdir()
    shutil.copyfile(file, tmp_path / "annotations" / file.name)
    samples = read_coco(tmp_path / "annotations" / file.name)
    assert (len(samples), len(samples.class_names), samples.objects.counts.sum()) == (100, 1230, 977)
    assert [samples.frequency.count(group) for group in "rcf"] == [454, 461, 315]
    for index, image in enumerate(made["images"]):
        for listed, ids in (("negative", "neg_category_ids"), ("partial", "not_exhaustive_category_ids")):
            labels = getattr(samples.objects[index], listed)
            assert [samples.category_ids[label] for label in labels] == image[ids]


def test_lists_follow_images_and_classes(tmp_path: Path) -> None:
    """A selection of the images, classes under a model's numbers, and classes without any object left out."""
    part = read(tmp_path).subset(np.array([2, 0]))
    assert [part.objects[k].partial.tolist() for k in range(2)] == [[3], [1]]
    moved = part.renumbered(np.array([4, 3, 2, 0]), ("dog", "new", "cow", "bee", "ant"))
    assert moved.frequency == ("f", "", "f", "c", "r")
    assert [moved.objects[k].negative.tolist() for k in range(2)] == [[], [0]]
    used = part.with_used_classes()
    assert (used.class_names, used.frequency) == (("ant", "bee", "dog"), ("r", "c", "f"))
    assert [used.objects[k].negative.tolist() for k in range(2)] == [[], [2]]
    assert read(tmp_path).fingerprint == read(tmp_path).fingerprint
    assert read(tmp_path, lambda made: made["images"][0].update(neg_category_ids=[])).fingerprint != (
        read(tmp_path).fingerprint
    )


def drop(*keys: str) -> Change:
    """From every image and category."""

    def change(made: dict[str, Any]) -> None:
        for item in (*made["images"], *made["categories"]):
            for key in keys:
                item.pop(key, None)

    return change


LISTS = ("neg_category_ids", "not_exhaustive_category_ids")


@pytest.mark.parametrize(
    ("change", "frequency", "note"),
    [
        (drop(*LISTS), "rcff", "a detection of a class that was not looked for is a false alarm, and AP is lower"),
        (drop("frequency"), ["", "", "", ""], "4 classes have no frequency .* part of AP, not of APr, APc and APf"),
        (lambda made: made["categories"][1].pop("frequency"), ["r", "", "f", "f"], "1 class has no frequency"),
        (lambda made: made["categories"][1].update(frequency=None, image_count=10), "rcff", "figures follow its rules"),
        (drop("frequency", *LISTS), (), "^$"),  # COCO's json, but for the address in place of a name
    ],
)
def test_a_file_without_some_of_it(tmp_path: Path, change: Change, frequency: Any, note: str) -> None:
    samples = read(tmp_path, change)
    assert samples.frequency == tuple(frequency)
    assert re.search(note, " ".join(samples.notes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda made: [made["images"][1].pop(name) for name in LISTS],
            "1 of 3 images have no neg_category_ids: LVIS evaluation needs it of every image; without any, AP is COCO",
        ),
        (
            lambda made: made["images"][1].pop("not_exhaustive_category_ids"),
            r"image 10: not_exhaustive_category_ids is missing: LVIS evaluation needs neg_category_ids and",
        ),
        (
            lambda made: made["images"][1].update(neg_category_ids=["bee"]),
            r"image 10: neg_category_ids is no list of category ids",
        ),
        (
            lambda made: made["categories"][1].update(frequency="often"),
            r"category 2: frequency 'often' is none of r \(rare\), c \(common\), f \(frequent\)",
        ),
    ],
)
def test_a_file_that_contradicts_itself(tmp_path: Path, change: Change, message: str) -> None:
    with pytest.raises(ResnestError, match=message):
        read(tmp_path, change)


def test_the_doctor_says_how_long_the_tail_is(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    write(tmp_path, content())
    write(tmp_path, content(), "lvis_v1_train.json")
    told = cli("doctor", "--data", tmp_path).out
    assert "classes by their frequency in the json: 1 rare, 1 common, 2 frequent; 3 of 4 classes have training" in told


# --- evaluation: LVIS's rules by the data, whatever the model ---


def card(names: tuple[str, ...] = NAMES, **detector: Any) -> DetectionCard:
    return DetectionCard(
        architecture="resnest14",
        spec=Spec(),
        class_names=names,
        category_ids=tuple(range(1, len(names) + 1)),
        preprocess=DetectionPreprocess(),
        detector=DetectorSpec(**detector),
    )


def found(*labels: int) -> Detections:
    """The one box, once of each class."""
    boxes = np.array([[2, 2, 22, 12]] * len(labels), np.float32).reshape(-1, 4)
    scores = np.full(len(labels), 0.5 + len(labels) / 10, np.float32)
    return Detections("", 40, 30, Classes(NAMES, (1, 2, 3, 4)), boxes, np.array(labels, np.int64), scores)


def evaluated(samples: DetectionSamples, **detector: Any) -> Any:
    """Everything is found; and a dog in the first two pictures: the first has none, of the second nothing is known."""
    scorers = [DetectionScorer(samples.aligned(card(**detector), "data"), card(**detector)) for _ in range(2)]
    for index, labels in enumerate(((0, 1, 3), (1, 3), (3,))):
        scorers[index % 2].update(index, found(*labels), samples.objects[index])
    scorers[0].merge(scorers[1])
    return scorers[0].result()


def test_the_rules_are_those_of_the_data(tmp_path: Path) -> None:
    whole = read(tmp_path)
    lvis = evaluated(whole)
    figures = lvis.figures
    assert figures["box_apr"] == figures["box_apc"] == pytest.approx(1)
    assert figures["box_apf"] == pytest.approx(0.5)  # the dog that is not there, and no third one
    assert figures["box_ap"] == figures["box_ap_fixed"] == pytest.approx(2.5 / 3)
    assert [len(errors.false) for errors in lvis.mistakes] == [1, 0, 0]
    told = "\n".join(lvis.lines())
    assert "AP rare" in told
    assert "AP fixed" in told
    assert "AR 300" in told
    assert "AR 10 " not in told
    assert "keeps 100 detections an image that score 0.05 or more, and LVIS counts 300 of any score" in told
    assert evaluated(whole, max_detections=300, score_threshold=1e-4).most is None


def test_without_lists_figures_are_cocos_by_frequency(tmp_path: Path) -> None:
    coco = evaluated(read(tmp_path, drop(*LISTS)))
    assert coco.figures["box_apf"] == pytest.approx(1 / 3, abs=0.01)  # both dogs are false alarms
    assert coco.figures["box_apr"] == pytest.approx(1)
    assert "box_ap_fixed" not in coco.figures
    told = "\n".join(coco.lines())
    assert "AP rare" in told
    assert "AR 100" in told
    assert "detector.max_detections" not in told


def test_a_model_of_another_version(tmp_path: Path) -> None:
    with pytest.raises(ResnestError, match=r"not know: bee\. .* LVIS v0\.5 has 1,230 classes, v1 has 1,203"):
        read(tmp_path).aligned(card(("ant", "bee_(insect)", "dog")), "data")


def test_a_data_set_in_two_parts(tmp_path: Path) -> None:
    write(tmp_path, content(), "lvis_v1_train.json")
    other = content()
    other["categories"][2] = {"id": 9, "name": "eel", "frequency": "r"}
    write(tmp_path, other)
    splits = open_dataset(tmp_path)
    assert splits.train.class_names == splits.val.class_names == ("ant", "bee", "cow", "dog", "eel")
    assert splits.train.frequency == ("r", "c", "f", "f", "")
    assert splits.val.frequency == ("r", "c", "", "f", "r")
