"""Objects that are annotated twice count once, in every format, and the line on the data says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnest.data.sources import open_split
from resnest.detection.data import DetectionSamples
from resnest.detection.metrics import CocoMetrics
from resnest.detection.result import Classes, Detections
from scenes import SQUARE, coco_json, picture, pictures, voc, voc_object, write

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools

OTHER = [[4, 4, 14, 4, 14, 14]]  # in the same box
Change = Callable[[dict[str, Any]], None]


def _again(**changes: Any) -> Change:
    def change(content: dict[str, Any]) -> None:
        content["annotations"].append({**content["annotations"][0], "id": 999, **changes})

    return change


def _all_again(content: dict[str, Any]) -> None:
    content["annotations"] += [{**item, "id": item["id"] + 500} for item in content["annotations"]]


def _first_without(content: dict[str, Any]) -> None:
    _again()(content)
    content["annotations"][0]["segmentation"] = None


@pytest.mark.parametrize(
    ("change", "left", "note"),
    [
        (_again(), 5, "1 annotation repeats another with the same class and box and is left out, such as annotation"),
        (_again(area=77), 5, "1 annotation repeats another"),
        (_again(id=100), 5, "such as annotation 100, which repeats 100 of 40.png"),
        (_again(bbox=[4.0, 4.0, 10.0, 10.0]), 5, "which repeats 100 of 40.png"),
        (_again(segmentation=None), 5, "annotation 999, which repeats 100"),
        (_first_without, 5, "annotation 100, which repeats 999"),
        (_all_again, 5, "5 annotations repeat others with the same class and box and are left out"),
        (_again(category_id=2), 6, ""),
        (_again(image_id=3), 6, ""),
        (_again(iscrowd=1), 6, ""),
        (_again(bbox=[4, 4, 10, 11]), 6, ""),
        (_again(segmentation=OTHER), 6, ""),  # two objects that share their box
    ],
)
def test_an_object_that_is_there_twice_counts_once(change: Change, left: int, note: str, tmp_path: Path) -> None:
    content = coco_json()
    change(content)
    pictures(tmp_path / "images", content)
    split = open_split(write(tmp_path / "all.json", content))
    assert isinstance(split.samples, DetectionSamples)
    assert split.samples.objects.counts.sum() == left
    assert sum(len(item.ids) for item in split.samples.objects) == left
    assert note in split.describe
    assert bool(note) == ("repeat" in split.describe)
    first = split.samples.objects[0]
    assert SQUARE in first.segmentations  # the one with an outline stays


def test_voc_has_them_too(tmp_path: Path) -> None:
    for stem, count in (("a", 1), ("b", 3)):
        picture(tmp_path / f"{stem}.png")
        (tmp_path / f"{stem}.xml").write_text(voc(stem, voc_object("cat", (1, 1, 9, 9)) * count))
    split = open_split(tmp_path)
    assert isinstance(split.samples, DetectionSamples)
    assert split.samples.objects.counts.tolist() == [1, 1]
    assert "2 annotations repeat others" in split.describe


def test_a_perfect_detector_is_perfect(tmp_path: Path) -> None:
    content = coco_json()
    _all_again(content)
    pictures(tmp_path / "images", content)
    samples = open_split(write(tmp_path / "all.json", content)).samples
    assert isinstance(samples, DetectionSamples)
    metrics = CocoMetrics(samples.class_names, masks=False)
    for index, truth in enumerate(samples.objects):
        good = ~truth.crowd
        found = Detections(
            name="",
            width=truth.width,
            height=truth.height,
            classes=Classes(samples.class_names, samples.category_ids),
            boxes=truth.boxes[good],
            scores=np.linspace(0.9, 0.6, int(good.sum()), dtype=np.float32),
            labels=truth.labels[good],
        )
        metrics.update(index, found, truth)
    assert metrics.compute().figures["box_ap"] == pytest.approx(1)
