"""COCO's average precision and recall of boxes and masks, as pycocotools computes them, with faster-coco-eval.

    metrics = CocoMetrics(class_names, masks=True)
    metrics.update(17, detections, truth)         # image by image; 17: its number
    result = metrics.compute()
    result.figures["box_ap"], result.class_ap["mask"], result.curves["box"]

Figures of both kinds, with `box_` or `mask_` before them: `ap` (mean over IoU 0.50 to 0.95), `ap50`, `ap75`, `aps`,
`apm`, `apl` (objects below 32 x 32 pixels, to 96 x 96, above), `ar1`, `ar10`, `ar100` (recall of the best 1, 10, 100
objects of a class in an image), `ars`, `arm`, `arl`. With another `max_detections`, n, it is pycocotools with
`params.maxDets = [1, 10, n]`: `ar100` is then called `ar{n}`, and all figures but `ar1` and `ar10` look at the best n.
What cannot be measured, such as `apl` without large objects, is NaN, where pycocotools has -1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from resnest.detection.result import Detections
from resnest.errors import ResnestError

Floats = NDArray[np.float64]
KINDS = {"box": "bbox", "mask": "segm"}  # ours, and the COCO API's
AREAS = ("", "s", "m", "l")  # in the COCO API's order: all, small, medium, large
IOU50, IOU75 = 0, 5  # places in 0.50, 0.55, ... 0.95


class Truth(Protocol):
    """The ground truth of one image."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def boxes(self) -> NDArray[np.float32]: ...  # (M, 4) x1, y1, x2, y2
    @property
    def labels(self) -> NDArray[Any]: ...  # (M,)
    @property
    def crowd(self) -> NDArray[np.bool_]: ...  # (M,) regions of many objects: neither missed nor false there
    @property
    def areas(self) -> NDArray[Any]: ...  # (M,)
    @property
    def segmentations(self) -> Sequence[Any]: ...  # polygons, runs, or None


@dataclass(frozen=True)
class CocoResult:
    """Results for each kind that was evaluated, "box" and optionally "mask"."""

    figures: dict[str, float]  # fractions
    class_ap: dict[str, Floats]  # (K,), NaN for a class without objects
    curves: dict[str, Floats]  # (K, 101) precision at IoU 0.5 and recall 0.00, 0.01, ... 1.00


class CocoMetrics:
    """Stores every object by image number, so that the result depends on neither order nor partition."""

    def __init__(self, class_names: Sequence[str], *, masks: bool, max_detections: int = 100) -> None:
        self.class_names = tuple(class_names)
        self.kinds = ("box", "mask") if masks else ("box",)
        self.limits = [1, 10, max(max_detections, 10)]
        self.images: dict[int, tuple[Detections, Truth]] = {}

    def update(self, image: int, detections: Detections, truth: Truth) -> None:
        """Add one image."""
        self.images[image] = (detections, truth)

    def merge(self, other: CocoMetrics) -> None:
        """Add what another accumulator (another process) has collected."""
        self.images |= other.images

    def compute(self) -> CocoResult:
        """Raises ResnestError if faster-coco-eval is not installed."""
        measured = {kind: self._measure(kind) for kind in self.kinds}  # two arrays each
        return CocoResult(
            figures={
                f"{kind}_{name}": value
                for kind, (precision, recall) in measured.items()
                for name, value in self._figures(precision, recall).items()
            },
            class_ap={
                kind: np.array([_mean(precision[:, :, k, 0, -1]) for k in range(precision.shape[2])])
                for kind, (precision, _) in measured.items()
            },
            curves={
                kind: np.where(precision[IOU50, :, :, 0, -1] > -1, precision[IOU50, :, :, 0, -1], np.nan).T
                for kind, (precision, _) in measured.items()
            },
        )

    def _measure(self, kind: str) -> tuple[Floats, Floats]:
        """Precision (10 IoUs, 101 recalls, K, 4 areas, 3 limits) and recall (10, K, 4, 3); -1: none."""
        coco, evaluator = coco_library()
        truth = coco()
        truth.dataset = {
            "images": [
                {"id": image, "width": objects.width, "height": objects.height}
                for image, (_, objects) in sorted(self.images.items())
            ],
            "categories": [{"id": k, "name": name} for k, name in enumerate(self.class_names)],
            "annotations": self._coco_ground_truth(kind),
        }
        truth.createIndex()
        results = truth.loadRes(self._coco_detections(kind))
        evaluation = evaluator(truth, results, KINDS[kind])
        evaluation.params.maxDets = self.limits
        evaluation.evaluate()
        evaluation.accumulate()
        return np.asarray(evaluation.eval["precision"]), np.asarray(evaluation.eval["recall"])

    def _coco_ground_truth(self, kind: str) -> list[dict[str, Any]]:
        """Ground truth, numbered from 1, as 0 is none in the COCO API. Objects without a mask are left out of masks."""
        annotations: list[dict[str, Any]] = []
        for image, (_, truth) in sorted(self.images.items()):
            for index in range(len(truth.labels)):
                x1, y1, x2, y2 = map(float, truth.boxes[index])
                annotation = {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(truth.labels[index]),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": float(truth.areas[index]),
                    "iscrowd": int(truth.crowd[index]),
                }
                if kind == "mask":
                    if not truth.segmentations[index]:
                        continue
                    annotation["segmentation"] = truth.segmentations[index]
                annotations.append(annotation)
        return annotations

    def _coco_detections(self, kind: str) -> list[dict[str, Any]]:
        """Detections; for masks without boxes, as the COCO API would use the box's area."""
        results: list[dict[str, Any]] = []
        for image, (detections, _) in sorted(self.images.items()):
            boxes = detections.boxes.astype(np.float64)
            boxes[:, 2:] -= boxes[:, :2]
            for index in range(len(detections)):
                result: dict[str, Any] = {
                    "image_id": image,
                    "category_id": int(detections.labels[index]),
                    "score": float(detections.scores[index]),
                }
                if kind == "box":
                    result["bbox"] = boxes[index].tolist()
                else:
                    assert detections.masks is not None
                    result["segmentation"] = detections.masks[index]
                results.append(result)
        return results

    def _figures(self, precision: Floats, recall: Floats) -> dict[str, float]:
        small = {f"ap{area}": _mean(precision[:, :, :, i, -1]) for i, area in enumerate(AREAS)}
        at = {"ap50": _mean(precision[IOU50, :, :, 0, -1]), "ap75": _mean(precision[IOU75, :, :, 0, -1])}
        recalls = {f"ar{limit}": _mean(recall[:, :, 0, i]) for i, limit in enumerate(self.limits)}
        sized = {f"ar{area}": _mean(recall[:, :, i, -1]) for i, area in enumerate(AREAS) if area}
        return {"ap": small.pop("ap"), **at, **small, **recalls, **sized}


def _mean(values: Floats) -> float:
    """Mean of the defined values."""
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")


def coco_library() -> tuple[Any, Any]:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise ResnestError("evaluating a detector needs faster-coco-eval: pip install 'resnest[detection]'") from None
    return COCO, COCOeval_faster
