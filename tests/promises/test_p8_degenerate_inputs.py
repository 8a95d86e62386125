"""P8, degenerate inputs: a finite loss and finite gradients, or one clear line before the first step that says why."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import pico
from painted import TINY_RUN, paint
from painted_segments import TINY_PANOPTIC, paint_segments
from resnest.errors import ResnestError
from resnest.panoptic.result import PanopticClasses, PanopticMap, Segment
from resnest.training.train import train
from runs import checkpoint, lines
from segments import THINGS

# what is unusual, settings for it
TRAINS = {
    "one sample, frozen norm": ["train.batch_size=1", "model.spec.attention_norm=frozen", "data.size=40"],
    "one sample, layer norm": ["train.batch_size=1", "model.spec.attention_norm=layer", "data.size=40"],
    "one sample, no attention": ["train.batch_size=1", "model.spec.radix=0", "model.spec.avd=false", "data.size=40"],
    "two samples": ["train.batch_size=2"],
    "micro-batches of two": ["train.batch_size=2", "train.accumulate=3"],
    "one batch of all images": ["train.batch_size=1000"],
    "33 x 31 pixels": ["data.size=33", "data.eval_size=31"],
    "one pixel at the end": ["data.size=8", "train.batch_size=2"],
    "a step an epoch": ["train.batch_size=24"],
}
REFUSED = {
    "one sample, attention's batch-norm": (
        ["train.batch_size=1"],
        r"attention_norm='batch'.*Set train\.batch_size to 2 or more",
    ),
    "one sample, one pixel at the end": (
        ["train.batch_size=1", "model.spec.attention_norm=frozen", "data.size=8"],
        r"would see one value per channel\. Use train\.batch_size=2 or more, or larger images",
    ),
}


@pytest.mark.parametrize("case", TRAINS)
def test_trains(case: str, photos: Path, tmp_path: Path) -> None:
    train("imagenette", data=photos, out=tmp_path / "run", settings=pico(*TRAINS[case], "train.max_steps=6"))
    steps = lines(tmp_path / "run", "train")
    assert steps
    assert all(line["skipped"] == 0 for line in steps)
    for line in steps:
        assert math.isfinite(line["loss"])  # null in JSON would be None, and fail
        assert math.isfinite(line["gradient_norm"])
        assert line["gradient_norm"] > 0
    assert math.isfinite(lines(tmp_path / "run", "eval")[0]["loss"])


@pytest.mark.parametrize("case", REFUSED)
def test_is_refused(case: str, photos: Path, tmp_path: Path) -> None:
    settings, message = REFUSED[case]
    with pytest.raises(ResnestError, match=message) as caught:
        train("imagenette", data=photos, out=tmp_path / "run", settings=pico(*settings))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_one_class(photos: Path, tmp_path: Path) -> None:
    for folder in sorted(photos.iterdir())[1:]:
        shutil.rmtree(folder)
    with pytest.raises(ResnestError, match="one class only"):
        train("imagenette", data=photos, out=tmp_path / "run", settings=pico())


def test_images_of_one_pixel_and_of_extreme_shape(photos: Path, tmp_path: Path) -> None:
    for place, (path, size) in enumerate(
        zip(sorted(photos.rglob("*.jpg")), [(1, 1), (300, 1), (1, 300), (33, 31)] * 9, strict=False)
    ):
        Image.new("RGB", size, (place * 6, 90, 200 - place * 5)).save(path)
    train("imagenette", data=photos, out=tmp_path / "run", settings=pico("train.max_steps=4"))
    weights = checkpoint(tmp_path / "run")["model"]
    assert all(torch.isfinite(tensor.float()).all() for tensor in weights.values())


def _one_pixel(content: dict[str, Any]) -> None:
    for one in content["annotations"]:
        one["bbox"][2:] = [1, 1]
        one.pop("segmentation", None)  # which would contradict the box


def _mostly_empty(content: dict[str, Any]) -> None:
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] == 0 and not one["iscrowd"]]


def _one_class(content: dict[str, Any]) -> None:
    content["categories"] = content["categories"][:1]
    for one in content["annotations"]:
        one["category_id"] = content["categories"][0]["id"]


def _as_it_is(content: dict[str, Any]) -> None:
    pass


# a detector: what is done to the annotations of both parts, settings
DETECTORS = {
    "boxes of one pixel": (_one_pixel, []),
    "pictures without objects": (_mostly_empty, ["detection.keep_empty=true"]),
    "one class, one picture a step": (_one_class, ["train.batch_size=1"]),
    "32 pixels, smaller than most anchors": (_as_it_is, ["detection.short=[32]", "detection.eval_short=32"]),
    "a cascade, batch norm": (_as_it_is, ["detector.cascade=true", "detector.norm=batch", "detector.box_convs=1"]),
}


@pytest.mark.parametrize("case", DETECTORS)
def test_a_detector_trains(case: str, tmp_path: Path) -> None:
    change, settings = DETECTORS[case]
    data = paint(tmp_path / "data", 3)
    for path in (data / "annotations").iterdir():
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
    recipe = "detect_small" if "pixel" in case else "instances_small"  # outlines stay where boxes are changed
    train(recipe, data=data, out=tmp_path / "run", settings=[*TINY_RUN, *settings])
    steps = lines(tmp_path / "run", "train")
    assert len(steps) >= 4
    for line in steps:
        assert line["skipped"] == 0
        assert math.isfinite(line["loss"])
        assert line["gradient_norm"] > 0


def test_a_detector_whose_norm_sees_one_value_is_refused(tmp_path: Path) -> None:
    settings = [*TINY_RUN, "train.batch_size=1", "detection.backbone_norm=batch"]
    with pytest.raises(ResnestError, match=r"attention_norm='batch'.*one value") as caught:
        train("detect_small", data=paint(tmp_path / "data", 3), out=tmp_path / "run", settings=settings)
    assert "\n" not in str(caught.value)


def _odd_ones_change(change: Callable[[PanopticMap], PanopticMap]) -> Callable[[PanopticMap], PanopticMap]:
    """Every other picture."""
    return lambda one: change(one) if int(Path(one.name).stem) % 2 else one


def _only(wanted: Callable[[Segment], bool]) -> Callable[[PanopticMap], PanopticMap]:
    """All other segments become void."""

    def change(one: PanopticMap) -> PanopticMap:
        kept = tuple(segment for segment in one.segments if wanted(segment))
        return replace(one, ids=np.where(np.isin(one.ids, [k.id for k in kept]), one.ids, 0), segments=kept)

    return change


def _crowded(one: PanopticMap) -> PanopticMap:
    return replace(one, segments=tuple(k._replace(crowd=k.label < one.classes.things) for k in one.segments))


def _two_classes(one: PanopticMap) -> PanopticMap:
    classes = PanopticClasses(names=("thing", "stuff"), ids=(1, 2), things=1)
    segments = tuple(k._replace(label=int(k.label >= one.classes.things)) for k in one.segments)
    return replace(one, classes=classes, segments=segments)


# a panoptic detector: what is done to the maps of both parts, settings
PANOPTIC: dict[str, tuple[Callable[[PanopticMap], PanopticMap], list[str]]] = {
    "pictures without things": (_odd_ones_change(_only(lambda k: k.label >= THINGS)), []),
    "pictures without stuff": (_odd_ones_change(_only(lambda k: k.label < THINGS)), []),
    "pictures of which nothing counts": (_odd_ones_change(_only(lambda k: False)), []),
    "only crowds in some": (_odd_ones_change(_crowded), ["train.batch_size=1"]),
    "one kind of things, one of stuff": (_two_classes, ["detector.cascade=true"]),
}


@pytest.mark.parametrize("case", PANOPTIC)
def test_a_panoptic_detector_trains(case: str, tmp_path: Path) -> None:
    change, settings = PANOPTIC[case]
    data = paint_segments(tmp_path / "data", 3, change)
    shorter = ["train.epochs=1", "train.save_every=100"]
    train("panoptic_small", data=data, out=tmp_path / "run", settings=[*TINY_RUN, *TINY_PANOPTIC, *shorter, *settings])
    steps = lines(tmp_path / "run", "train")
    assert len(steps) >= 3
    for line in steps:
        assert line["skipped"] == 0
        assert math.isfinite(line["loss"])
        assert line["gradient_norm"] > 0


def test_a_panoptic_detector_without_things_to_learn_is_refused(tmp_path: Path) -> None:
    data = paint_segments(tmp_path / "data", 3, _crowded)
    with pytest.raises(ResnestError, match="none of the 6 training images has a thing that is no crowd"):
        train("panoptic_small", data=data, out=tmp_path / "run", settings=[*TINY_RUN, *TINY_PANOPTIC])
    assert not (tmp_path / "run").exists()
