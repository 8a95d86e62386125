"""Random federated sets on real annotations of LVIS, with detections, for `LvisMetrics` and for lvis-api alike."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.detection.card import Classes
from resnest.detection.data import Objects
from resnest.detection.lvis import LvisMetrics
from resnest.detection.result import Detections
from resnest.runtime.rle import encode

IMAGES, CLASSES = 12, 30
SCORES = np.linspace(0.05, 1, 40).astype(np.float32)  # few, so that there are ties
SIZED = ("aps", "apm", "apl", "apr", "apc", "apf")


@dataclass
class FederatedSet:
    """Images and categories as in the json, and detections by image id."""

    content: dict[str, Any]
    found: dict[int, Detections]

    def results(self, kind: str) -> list[dict[str, Any]]:
        """Detections as COCO's tools read them; masks without boxes."""
        unused = "bbox" if kind == "mask" else "segmentation"
        every = [result for number, found in self.found.items() for result in found.to_coco(number)]
        return [{key: value for key, value in result.items() if key != unused} for result in every]

    def metrics(self) -> LvisMetrics:
        """Ours, with every image of the set."""
        categories = self.content["categories"]
        place = {category["id"]: k for k, category in enumerate(categories)}
        ours = LvisMetrics([c["name"] for c in categories], [c["frequency"] for c in categories], masks=True)
        for image in self.content["images"]:
            mine = [a for a in self.content["annotations"] if a["image_id"] == image["id"]]
            boxes = np.array([a["bbox"] for a in mine], np.float32).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            truth = Objects(
                image_id=image["id"],
                width=image["width"],
                height=image["height"],
                boxes=boxes,
                labels=np.array([place[a["category_id"]] for a in mine], np.int64),
                crowd=np.zeros(len(mine), bool),
                areas=np.array([a["area"] for a in mine], np.float64),
                segmentations=[a["segmentation"] for a in mine],
                ids=np.arange(len(mine)),
                negative=np.array([place[k] for k in image["neg_category_ids"]], np.int64),
                partial=np.array([place[k] for k in image["not_exhaustive_category_ids"]], np.int64),
            )
            ours.update(image["id"], self.found[image["id"]], truth)
        return ours


def random_set(file: Path, seed: int) -> FederatedSet:
    """Some images and classes of LVIS; other lists, noisy copies of the truth, false detections, ties, over 300."""
    rng = np.random.default_rng(seed)
    every = json.loads(file.read_text())
    images = [dict(every["images"][k]) for k in rng.choice(len(every["images"]), IMAGES, replace=False)]
    shown = {image["id"] for image in images}
    annotations = [a for a in every["annotations"] if a["image_id"] in shown]
    ids = np.unique([a["category_id"] for a in annotations])
    ids = np.sort(rng.choice(ids, min(CLASSES, len(ids)), replace=False))
    annotations = _whole(a for a in annotations if a["category_id"] in ids)
    categories = [c for c in every["categories"] if c["id"] in ids]
    found = {}
    for place, image in enumerate(images):
        mine = [a for a in annotations if a["image_id"] == image["id"]]
        here = {a["category_id"] for a in mine}
        absent = np.array(sorted({*ids.tolist()} - here), np.int64)
        image["neg_category_ids"] = rng.choice(absent, rng.integers(0, len(absent) + 1), replace=False).tolist()
        listed = np.array(sorted({*here, *image["neg_category_ids"]}), np.int64)
        image["not_exhaustive_category_ids"] = listed[rng.random(len(listed)) < 0.3].tolist()
        more = 420 if place % 5 == 1 else int(rng.integers(0, 25))
        found[image["id"]] = _detections(rng, image, mine, ids, more)
    return FederatedSet({"images": images, "annotations": annotations, "categories": categories}, found)


def _whole(annotations: Any) -> list[dict[str, Any]]:
    """Boxes of whole pixels, which float32 and float64 hold alike."""
    return [a | {"bbox": [float(round(side)) for side in a["bbox"]]} for a in annotations]


def _detections(
    rng: np.random.Generator, image: dict[str, Any], truth: list[dict[str, Any]], ids: NDArray[np.int64], more: int
) -> Detections:
    """Copies of most objects, some twice or as another class, and false ones."""
    wide, high = image["width"], image["height"]
    copied = [a for a in truth for _ in range(rng.integers(0, 3))]
    corners = np.array([a["bbox"] for a in copied], np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    start = rng.uniform(0, 0.8, (more, 2)) * (wide, high)
    false = np.concatenate([start, start + rng.uniform(4, 200, (more, 2))], 1)
    boxes = np.concatenate([corners + rng.normal(0, 2, corners.shape), false]).round()
    boxes = np.clip(boxes, 0, [wide - 2, high - 2] * 2)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    kinds = np.array([a["category_id"] for a in copied], np.int64)
    kinds = np.where(rng.random(len(kinds)) < 0.2, rng.choice(ids, len(kinds)), kinds)
    kinds = np.concatenate([kinds, rng.choice(ids, more)])
    scores = rng.choice(SCORES, len(boxes))
    order = np.argsort(-scores, kind="stable")
    return Detections(
        name="",
        width=wide,
        height=high,
        classes=Classes(tuple(map(str, ids.tolist())), tuple(ids.tolist())),
        boxes=boxes[order].astype(np.float32),
        labels=np.searchsorted(ids, kinds[order]),
        scores=scores[order],
        masks=tuple(_filled(box, wide, high) for box in boxes[order].astype(int)),
    )


def _filled(box: NDArray[np.int64], wide: int, high: int) -> Any:
    left, top, right, bottom = box
    return encode(np.ones((bottom - top, right - left), bool), left=int(left), top=int(top), size=(high, wide))


def of_reference(made: FederatedSet, kind: str, *, most: int = 300) -> dict[str, float]:
    """The figures of the package `lvis`, by our names; NaN where it has -1. numpy must have `float`."""
    from lvis import LVIS, LVISEval, LVISResults

    truth = LVIS.__new__(LVIS)
    truth.dataset = json.loads(json.dumps(made.content))
    truth.logger = __import__("logging").getLogger("lvis")
    truth._create_index()
    results = LVISResults(truth, made.results(kind), max_dets=most)
    evaluation = LVISEval(truth, results, {"box": "bbox", "mask": "segm"}[kind])
    evaluation.params.max_dets = most
    evaluation.run()
    rows = {"AP": "ap", "AP50": "ap50", "AP75": "ap75", f"AR@{most}": "ar300"}
    rows |= {f"AP{key[2:]}": key for key in SIZED} | {f"AR{size}@{most}": f"ar{size}" for size in "sml"}
    found = {ours: float(evaluation.results[theirs]) for theirs, ours in rows.items()}
    return {f"{kind}_{key}": float("nan") if value == -1 else value for key, value in found.items()}
