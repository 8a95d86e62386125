"""What evaluating a segmenter gave: mean IoU, and which classes are taken for which.

result.figures["miou"], result.headline, result.class_iou, result.confusion
for place in result.worst(12): result.indices[place], result.kept[place].labels
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from resnest.errors import ResnestError
from resnest.inference.detection_outcome import percent
from resnest.inference.outcome import Evaluation, Indices
from resnest.metrics.pixels import Counts, PixelMetrics, Shares, intersection_over_union
from resnest.runtime.label_map import LabelMap

KEPT = 12  # pictures of which the labels are kept, the worst ones: those of all would fill the memory


class Seen(NamedTuple):
    """One picture."""

    iou: float  # mean over the classes that are there or given; NaN if nothing counts
    labels: LabelMap | None  # none: it was not among the worst


@dataclass(kw_only=True)
class PixelEvaluation(Evaluation):
    """Of a segmenter."""

    counted = "pixels"

    confusion: Counts  # (K, K) pixels, rows: truth
    class_iou: Shares  # (K,), NaN for a class that is neither there nor given
    image_iou: Shares  # (N,) mean over classes, of each picture
    kept: dict[int, LabelMap]  # by position: the worst pictures'

    @property
    def headline(self) -> str:
        return f"mIoU {percent(self.figures['miou'])}, pixel accuracy {percent(self.figures['pixel_accuracy'])}"

    def lines(self) -> list[str]:
        known = int(np.isfinite(self.class_iou).sum())
        return [
            f"mIoU             {percent(self.figures['miou']):>7}   mean over {known} classes",
            f"pixel accuracy   {percent(self.figures['pixel_accuracy']):>7}   of all pixels that count",
            f"mean accuracy    {percent(self.figures['mean_accuracy']):>7}   of each class's pixels, mean of classes",
        ]

    def per_class(self) -> list[tuple[str, float | None, int]]:
        """Name, IoU and number of pixels of each class; None where it is neither there nor given."""
        return [
            (name, None if math.isnan(iou) else float(iou), int(count))
            for name, iou, count in zip(self.class_names, self.class_iou, self.confusion.sum(1), strict=True)
        ]

    def worst(self, most: int) -> Indices:
        """Positions of the pictures with the lowest mean IoU, worst first; none without a mistake."""
        order = np.argsort(self.image_iou, kind="stable")  # NaN comes last
        return order[self.image_iou[order] < 1][:most].astype(np.int64)


def keep_worst(seen: dict[int, Seen]) -> None:
    """Forget the labels of all pictures but the worst."""
    holding = [index for index, one in seen.items() if one.labels is not None]
    holding.sort(key=lambda index: (math.isnan(seen[index].iou), seen[index].iou, index))
    for index in holding[KEPT:]:
        seen[index] = seen[index]._replace(labels=None)


def collect_pixels(
    metrics: PixelMetrics,
    seen: Mapping[int, Seen],
    class_names: tuple[str, ...],
    *,
    bad: list[tuple[str, str]],
    seconds: float,
) -> PixelEvaluation:
    """The evaluation of all pictures together.

    Raises:
        ResnestError: there is none.
    """
    if not seen:
        raise ResnestError("not one image could be used")
    indices = sorted(seen)
    return PixelEvaluation(
        figures=metrics.compute(),
        class_names=class_names,
        indices=np.array(indices, np.int64),
        bad=bad,
        seconds=seconds,
        confusion=metrics.confusion,
        class_iou=intersection_over_union(metrics.confusion),
        image_iou=np.array([seen[index].iou for index in indices], np.float64),
        kept={place: labels for place, index in enumerate(indices) if (labels := seen[index].labels) is not None},
    )
