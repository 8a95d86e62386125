"""LVIS's average precision of boxes and masks (Gupta et al., arXiv 1908.03195), as lvis-api computes it.

    metrics = LvisMetrics(class_names, frequency, masks=True)
    metrics.update(17, detections, truth)         # image by image; its truth has `negative` and `partial`
    metrics.compute().figures["mask_apr"], ["mask_ap_fixed"]

What it does beside COCO's:

1. Of each image the 300 best detections count, over all classes.
2. A detection of a class that the image neither shows nor lists as absent does not count: nothing is known of it.
3. An unmatched detection of a class of which not every object is annotated does not count either.
4. `apr`, `apc` and `apf` are the means over rare, common and frequent classes.

`ap_fixed` has no limit per image: it takes the 10,000 best of each class over the data set (Dave et al., arXiv
2102.01066), so that one class's detections do not push another's out. Rule 3 is faster-coco-eval's
(`lvis_style`), whose own limit is per class and image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from resnest.detection.federated import is_known
from resnest.detection.matches import Matches, mean_of_known
from resnest.detection.metrics import CocoMetrics, CocoResult, Floats, Images
from resnest.detection.result import Detections

LIMIT = 300  # detections an image (lvis-api, eval.py, Params.max_dets)
CLASS_LIMIT = 10_000  # detections of a class over the data set (arXiv 2102.01066)


class LvisMetrics(CocoMetrics):
    """Stores every object by image number; `ar300` is the recall of the 300 best of an image."""

    def __init__(
        self, class_names: Sequence[str], frequency: Sequence[str], *, masks: bool, limit: int = LIMIT
    ) -> None:
        super().__init__(class_names, masks=masks, max_detections=limit, frequency=frequency)
        self.limits = [limit]

    def compute(self) -> CocoResult:
        limited = best_of_images(self.images, self.limits[0])
        fixed = best_of_classes(self.images, CLASS_LIMIT)
        result = self.result({kind: self._measure(kind, limited, self.limits) for kind in self.kinds})
        equal = _count(limited) == _count(fixed) == _count(self.images)  # neither limit was reached
        for kind in self.kinds:
            key = f"{kind}_ap"
            result.figures[f"{key}_fixed"] = result.figures[key] if equal else self._fixed(kind, fixed)
        return result

    def _fixed(self, kind: str, images: Images) -> float:
        most = max(len(found) for found, _ in images.values())
        precision, _ = self._measure(kind, images, [max(most, 1)])
        return mean_of_known(precision[:, :, :, 0, -1])

    def _measure(self, kind: str, images: Images, limits: list[int]) -> tuple[Floats, Floats]:
        return self.measure(kind, _known_only(images), limits, lvis_style=True)

    def resampling(self) -> Matches:
        limit = self.limits[0]
        return self.matches("box", _known_only(best_of_images(self.images, limit)), limit, lvis_style=True)

    def entry(self, image: int, objects: Any) -> dict[str, Any]:
        """An image in LVIS's json. Its absent classes are all, as detections of unknown ones are left out before.

        (faster-coco-eval 1.8 leaves them out too, and fails for masks where an image has no other detection.)
        """
        partial = [] if objects.partial is None else objects.partial.tolist()
        return super().entry(image, objects) | {
            "neg_category_ids": range(len(self.class_names)),
            "not_exhaustive_category_ids": {*partial},
        }


def best_of_images(images: Images, most: int) -> Images:
    """The best detections of each image, at most so many over all classes; of equal ones the first."""
    return {number: (_best(found, most), truth) for number, (found, truth) in images.items()}


def best_of_classes(images: Images, most: int) -> Images:
    """The best detections of each class over all images, at most so many; of equal ones the first."""
    numbers = sorted(images)
    found = [images[number][0] for number in numbers]
    scores, labels = (np.concatenate([getattr(one, name) for one in found]) for name in ("scores", "labels"))
    order = np.lexsort((-scores, labels))  # class by class, best first; stable
    ranks = np.arange(len(order)) - np.searchsorted(labels[order], labels[order])
    kept = np.zeros(len(order), bool)
    kept[order[ranks < most]] = True
    parts = np.split(kept, np.cumsum([len(one) for one in found])[:-1])
    return {number: (one[part], images[number][1]) for number, one, part in zip(numbers, found, parts, strict=True)}


def _known_only(images: Images) -> Images:
    """Detections of classes that the image shows or lists as absent."""
    return {number: (_known(found, truth), truth) for number, (found, truth) in images.items()}


def _known(found: Detections, truth: Any) -> Detections:
    return found[is_known(found.labels, truth)]


def _best(found: Detections, most: int) -> Detections:
    if len(found) <= most:
        return found
    kept = np.zeros(len(found), bool)
    kept[np.argsort(-found.scores, kind="stable")[:most]] = True
    return found[kept]


def _count(images: Images) -> int:
    return sum(len(found) for found, _ in images.values())
