"""COCO figures against pycocotools, on random images with everything that occurs (promise P7)."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from resnest.detection.card import Classes
from resnest.detection.metrics import CocoMetrics, CocoResult
from resnest.detection.result import Detections
from resnest.errors import ResnestError
from resnest.runtime.rle import encode

SIDE, CLASSES = 160, ("a", "b", "c", "never")


@dataclass
class Objects:
    """As data sets have them."""

    width: int
    height: int
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    segmentations: list[Any] = field(default_factory=list)


def _boxes(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    corner = SIDE * 0.8 * rng.random((count, 2)) ** 2
    sides = rng.uniform(1, SIDE * 0.9, (count, 2)) * rng.choice([0.2, 1], (count, 1))
    return np.concatenate([corner, np.minimum(corner + sides, SIDE)], 1).astype(np.float32)


def _mask(rng: np.random.Generator, box: NDArray[np.float32]) -> Any:
    x1, y1, x2, y2 = np.round(box).astype(int)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[y1 : y2 + 1, x1 : x2 + 1] = rng.random((y2 + 1 - y1, x2 + 1 - x1))[: SIDE - y1, : SIDE - x1] < 0.9
    return encode(mask)


def _image(rng: np.random.Generator, number: int) -> tuple[Detections, Objects]:
    """Every sort: without truth, without predictions, with crowds, ties, more than 100 of a class."""
    count = 0 if number % 7 == 0 else int(rng.integers(1, 9))
    truth = _boxes(rng, count)
    sides = truth[:, 2:] - truth[:, :2]
    segmentations = [_mask(rng, box) for box in truth]
    for place in range(0, count, 3):
        x1, y1, x2, y2 = map(float, truth[place])
        segmentations[place] = [[x1, y1, x2, y1, x2, y2, x1, y2], [x1, y1, x2, y2, x1, y2]]
    objects = Objects(
        SIDE,
        SIDE,
        truth,
        rng.integers(0, 3, count),
        rng.random(count) < 0.15,
        sides.prod(1) * rng.uniform(0.5, 1, count),
        segmentations,
    )
    more = 0 if number % 11 == 0 else 130 if number % 50 == 1 else int(rng.integers(0, 12))
    moved = np.clip(truth + rng.normal(0, 2, truth.shape), 0, SIDE).astype(np.float32)
    moved = moved[(moved[:, 2:] > moved[:, :2]).all(1)] if more else moved[:0]
    boxes = np.concatenate([moved, _boxes(rng, more)])
    labels = np.concatenate([objects.labels[: len(moved)], rng.integers(0, 3, more)])
    if more == 130:
        labels[:] = 1
    scores = rng.choice(np.linspace(0.05, 1, 12), len(boxes)).astype(np.float32)  # ties
    scores[len(moved) :] *= 0.5
    order = np.argsort(-scores, kind="stable")
    masks = tuple(_mask(rng, box) for box in boxes[order])
    found = Detections(
        "", SIDE, SIDE, Classes(CLASSES, (1, 2, 3, 9)), boxes[order], labels[order], scores[order], masks
    )
    return found, objects


IMAGES = [_image(np.random.default_rng(number), number) for number in range(200)]


def _of_pycocotools(kind: str, most: int) -> tuple[list[float], NDArray[np.float64]]:
    truth, results = COCO(), []
    annotations = [
        {
            "id": 0,
            "image_id": number,
            "category_id": int(objects.labels[place]),
            "bbox": [*map(float, box[:2]), *map(float, box[2:].astype(float) - box[:2])],
            "area": float(objects.areas[place]),
            "iscrowd": int(objects.crowd[place]),
            "segmentation": objects.segmentations[place],
        }
        for number, (_, objects) in enumerate(IMAGES)
        for place, box in enumerate(objects.boxes)
    ]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    for number, (found, _) in enumerate(IMAGES):
        for result in found.to_coco(number):
            result["category_id"] = found.classes.ids.index(result["category_id"])
            del result["bbox" if kind == "segm" else "segmentation"]
            results.append(result)
    truth.dataset = {
        "info": {},
        "images": [{"id": number, "width": SIDE, "height": SIDE} for number in range(len(IMAGES))],
        "categories": [{"id": k, "name": name} for k, name in enumerate(CLASSES)],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.params.maxDets = [1, 10, most]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats), evaluation.eval["precision"]


def _measured(images: list[int], most: int = 100) -> CocoMetrics:
    metrics = CocoMetrics(CLASSES, masks=True, max_detections=most)
    for number in images:
        metrics.update(number, *IMAGES[number])
    return metrics


@pytest.mark.parametrize("most", [100, 120])
def test_the_figures_are_those_of_pycocotools(most: int) -> None:
    ours = _measured(list(range(200)), most).compute()
    names = ["ap", "ap50", "ap75", "aps", "apm", "apl", "ar1", "ar10", f"ar{most}", "ars", "arm", "arl"]
    assert set(ours.figures) == {f"{kind}_{name}" for kind in ("box", "mask") for name in names}
    assert np.isfinite(list(ours.figures.values())).all()
    for kind, theirs in (("box", "bbox"), ("mask", "segm")):
        stats, precision = _of_pycocotools(theirs, most)
        for name, value in zip(names, stats, strict=True):
            if most == 100 or name != "ap":  # theirs looks for 100 detections there, whatever was asked for
                assert ours.figures[f"{kind}_{name}"] == pytest.approx(value, abs=1e-6), (kind, name)
        all_ious = precision[:, :, :, 0, -1]
        assert ours.figures[f"{kind}_ap"] == pytest.approx(all_ious[all_ious > -1].mean(), abs=1e-6)
        for k in range(3):
            assert ours.class_ap[kind][k] == pytest.approx(all_ious[:, :, k].mean(), abs=1e-6)
            assert ours.curves[kind][k] == pytest.approx(all_ious[0, :, k], abs=1e-6)
        assert np.isnan(ours.class_ap[kind][3])
        assert np.isnan(ours.curves[kind][3]).all()
        assert 0.05 < ours.figures[f"{kind}_ap"] < 0.95


def _same(one: CocoResult, other: CocoResult) -> None:
    for ours, theirs in ((one.figures, other.figures), (one.class_ap, other.class_ap), (one.curves, other.curves)):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert np.array_equal(ours[key], theirs[key], equal_nan=True)  # to the last bit


def test_however_the_images_are_cut() -> None:
    expected = _measured(list(range(60))).compute()
    order = np.random.default_rng(5).permutation(60)
    for parts in (2, 3):
        metrics = [_measured([int(number) for number in order[part::parts]]) for part in range(parts)]
        for one, other in itertools.pairwise(metrics[::-1]):
            other.merge(one)
        _same(metrics[0].compute(), expected)


def test_nothing_to_measure_is_not_a_number() -> None:
    assert all(math.isnan(value) for value in _measured([]).compute().figures.values())
    for number in (0, 7):  # without truth
        metrics = _measured([number])
        assert all(math.isnan(value) for value in metrics.compute().figures.values())
    found, objects = IMAGES[11]  # without predictions
    assert len(objects.labels)
    assert not len(found)
    assert _measured([11]).compute().figures["mask_ap"] == 0


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ResnestError, match=r"pip install 'resnest\[detection\]'"):
        _measured([1]).compute()
