"""What evaluating a segmenter gave: mean IoU, and which classes are taken for which.

result.figures["miou"], result.headline, result.class_iou, result.confusion
for place in result.worst(12): result.indices[place], result.kept[place].labels
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from resnest.inference.detection_outcome import percent
from resnest.inference.outcome import Evaluation, Indices
from resnest.inference.worst import WorstPictures, lowest
from resnest.metrics.pixels import Counts, PixelMetrics, Shares, intersection_over_union
from resnest.runtime.label_map import LabelMap


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
        return lowest(self.image_iou, most)


def collect_pixels(metrics: PixelMetrics, worst: WorstPictures, class_names: tuple[str, ...]) -> PixelEvaluation:
    """The evaluation of all pictures together.

    Raises:
        ResnestError: there is none.
    """
    confusion = metrics.confusion
    return PixelEvaluation(
        figures=metrics.compute(),
        class_names=class_names,
        indices=worst.indices,
        confusion=confusion,
        class_iou=intersection_over_union(confusion),
        image_iou=worst.qualities,
        kept=worst.results,
    )
