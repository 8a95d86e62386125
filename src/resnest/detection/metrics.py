"""COCO's average precision and recall of boxes and masks, as pycocotools computes them, with faster-coco-eval.

    metrics = CocoMetrics(class_names, masks=True)
    metrics.update(17, detections, truth)         # image by image; 17: its number
    result = metrics.compute()
    result.figures["box_ap"], result.class_ap["mask"], result.curves["box"]

Figures of both kinds, with `box_` or `mask_` before them: `ap` (mean over IoU 0.50 to 0.95), `ap50`, `ap75`, `aps`,
`apm`, `apl` (objects below 32 x 32 pixels, to 96 x 96, above), `ar1`, `ar10`, `ar100` (recall of the best 1, 10, 100
objects of a class in an image), `ars`, `arm`, `arl`. With another `max_detections`, n, it is pycocotools with
`params.maxDets = [1, 10, n]`: `ar100` is then called `ar{n}`, and all figures but `ar1` and `ar10` look at the best n.
Classes with frequencies (LVIS) also give `apr`, `apc`, `apf`: of the rare, common and frequent ones.
What cannot be measured, such as `apl` without large objects, is NaN, where pycocotools has -1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from resnest.detection.federated import GROUPS
from resnest.detection.matches import Matches, mean_of_known
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


Images = dict[int, tuple[Detections, Truth]]  # by number


@dataclass(frozen=True)
class CocoResult:
    """Results for each kind that was evaluated, "box" and optionally "mask"."""

    figures: dict[str, float]  # fractions
    class_ap: dict[str, Floats]  # (K,), NaN for a class without objects
    curves: dict[str, Floats]  # (K, 101) precision at IoU 0.5 and recall 0.00, 0.01, ... 1.00


class CocoMetrics:
    """Stores every object by image number, so that the result depends on neither order nor partition."""

    def __init__(
        self, class_names: Sequence[str], *, masks: bool, max_detections: int = 100, frequency: Sequence[str] = ()
    ) -> None:
        """`frequency` is r, c or f of each class (LVIS), "" if unknown: then there are `apr`, `apc` and `apf`, too."""
        self.class_names, self.frequency = tuple(class_names), np.array(frequency, "U1")
        self.kinds = ("box", "mask") if masks else ("box",)
        self.limits = [1, 10, max(max_detections, 10)]
        self.images: Images = {}

    def update(self, image: int, detections: Detections, truth: Truth) -> None:
        """Add one image."""
        self.images[image] = (detections, truth)

    def merge(self, other: CocoMetrics) -> None:
        """Add what another accumulator (another process) has collected."""
        self.images |= other.images

    def compute(self) -> CocoResult:
        """Raises ResnestError if faster-coco-eval is not installed."""
        return self.result({kind: self.measure(kind, self.images, self.limits) for kind in self.kinds})

    def result(self, measured: dict[str, tuple[Floats, Floats]]) -> CocoResult:
        """The figures of what `measure` gives for each kind."""
        return CocoResult(
            figures={
                f"{kind}_{name}": value
                for kind, (precision, recall) in measured.items()
                for name, value in self.figures(precision, recall).items()
            },
            class_ap={
                kind: np.array([mean_of_known(precision[:, :, k, 0, -1]) for k in range(precision.shape[2])])
                for kind, (precision, _) in measured.items()
            },
            curves={
                kind: np.where(precision[IOU50, :, :, 0, -1] > -1, precision[IOU50, :, :, 0, -1], np.nan).T
                for kind, (precision, _) in measured.items()
            },
        )

    def measure(self, kind: str, images: Images, limits: list[int], **rules: Any) -> tuple[Floats, Floats]:
        """Precision (10 IoUs, 101 recalls, K, 4 areas, limits) and recall (10, K, 4, limits); -1: none.

        Args:
            rules: of the evaluator.
        """
        evaluation = self._evaluator(kind, images, **rules)
        evaluation.params.maxDets = limits
        evaluation.evaluate()
        evaluation.accumulate()
        return np.asarray(evaluation.eval["precision"]), np.asarray(evaluation.eval["recall"])

    def matches(self, kind: str, images: Images, limit: int, **rules: Any) -> Matches:
        """What AP over all sizes is computed from; arguments as of `measure`."""
        return Matches(partial(self._evaluator, kind, images, **rules), limit)

    def resampling(self) -> Matches:
        """AP of boxes, of pictures in the order of their numbers."""
        return self.matches("box", self.images, self.limits[-1])

    def _evaluator(self, kind: str, images: Images, **rules: Any) -> Any:
        coco, evaluator = coco_library()
        truth = coco()
        truth.dataset = {
            "images": [self.entry(image, objects) for image, (_, objects) in sorted(images.items())],
            "categories": [{"id": k, "name": name, "frequency": "f"} for k, name in enumerate(self.class_names)],
            "annotations": _coco_ground_truth(kind, images),
        }
        truth.createIndex()
        results = truth.loadRes(_coco_detections(kind, images))
        return evaluator(truth, results, KINDS[kind], **rules)

    def entry(self, image: int, objects: Truth) -> dict[str, Any]:
        """An image in COCO json."""
        return {"id": image, "width": objects.width, "height": objects.height}

    def figures(self, precision: Floats, recall: Floats) -> dict[str, float]:
        """Of one kind, by key without the kind."""
        small = {f"ap{area}": mean_of_known(precision[:, :, :, i, -1]) for i, area in enumerate(AREAS)}
        at = {f"ap{iou}": mean_of_known(precision[i, :, :, 0, -1]) for iou, i in ((50, IOU50), (75, IOU75))}
        groups = GROUPS if len(self.frequency) else ()
        by_group = {f"ap{group}": mean_of_known(precision[:, :, self.frequency == group, 0, -1]) for group in groups}
        recalls = {f"ar{limit}": mean_of_known(recall[:, :, 0, i]) for i, limit in enumerate(self.limits)}
        sized = {f"ar{area}": mean_of_known(recall[:, :, i, -1]) for i, area in enumerate(AREAS) if area}
        return {"ap": small.pop("ap"), **at, **small, **by_group, **recalls, **sized}


def _coco_ground_truth(kind: str, images: Images) -> list[dict[str, Any]]:
    """Ground truth, numbered from 1, as 0 is none in the COCO API. Objects without a mask are left out of masks."""
    annotations: list[dict[str, Any]] = []
    for image, (_, truth) in sorted(images.items()):
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


def _coco_detections(kind: str, images: Images) -> list[dict[str, Any]]:
    """Detections; for masks without boxes, as the COCO API would use the box's area."""
    results: list[dict[str, Any]] = []
    for image, (detections, _) in sorted(images.items()):
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


def coco_library() -> tuple[Any, Any]:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise ResnestError("evaluating a detector needs faster-coco-eval: pip install 'resnest[detection]'") from None
    return COCO, COCOeval_faster
