"""Evaluation of a segmenter: mean IoU, confusion matrix, and the scorer that counts pixels.

result.figures["miou"], result.headline, result.class_iou, result.confusion
for k in result.worst(12): result.indices[k], result.worst_maps[k].labels
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.figures import Figure, percent
from resnest.inference.evaluation import Evaluation, Floats, Indices, WorstPictures, lowest
from resnest.segmentation.card import SegmentationCard
from resnest.segmentation.data import PixelSamples
from resnest.segmentation.metrics import Counts, Fractions, PixelMetrics, intersection_over_union, mean_of_known
from resnest.segmentation.result import LabelMap

FIGURES = (
    Figure("miou", "mIoU", "intersection over union, mean of the classes"),
    Figure("pixel_accuracy", "pixel accuracy", "of all pixels that count"),
    Figure("mean_accuracy", "mean accuracy", "of each class's pixels, mean of classes"),
)


@dataclass(kw_only=True)
class PixelEvaluation(Evaluation):
    """Evaluation of a segmenter."""

    table = FIGURES
    report = "resnest.segmentation.report:segmentation_report"
    counted = "pixels"

    confusion: Counts  # (K, K) pixels, rows: truth
    class_iou: Fractions  # (K,), NaN for a class that is neither true nor predicted
    image_iou: Fractions  # (N,) mean over classes, of each picture
    worst_maps: dict[int, LabelMap]  # by position: the worst pictures'

    @property
    def headline(self) -> str:
        return f"{self.titled('miou')}, {self.titled('pixel_accuracy')}"

    def lines(self) -> list[str]:
        known = int(np.isfinite(self.class_iou).sum())
        details = {"miou": f"mean over {known} classes"}
        return [
            f"{figure.title:<15}  {percent(self.figures[figure.key]):>7}   {details.get(figure.key, figure.meaning)}"
            for figure in self.table
        ]

    @property
    def class_figures(self) -> tuple[Floats, Indices]:
        """IoU and number of pixels of each class."""
        return self.class_iou, self.confusion.sum(1)

    def details(self) -> dict[str, Any]:
        pixels = self.confusion.sum(1)
        accuracy = np.where(pixels > 0, self.confusion.diagonal() / pixels.clip(1), np.nan)
        return {"pixels": int(pixels.sum()), "class_accuracy": self.by_class(accuracy)}

    def worst(self, most: int) -> Indices:
        """Positions of the pictures with the lowest mean IoU, worst first; none without a mistake."""
        return lowest(self.image_iou, most)


class SegmentationScorer:
    """Scorer of a segmenter: mean IoU and accuracies over all pixels, and the mean IoU of each picture.

    Counts pixels in integers.
    """

    def __init__(self, samples: PixelSamples, card: SegmentationCard) -> None:
        self.class_names = card.class_names
        self.metrics = PixelMetrics(len(card.class_names))
        self.worst = WorstPictures()

    def update(self, index: int, result: LabelMap, truth: NDArray[np.uint8]) -> None:
        counts = self.metrics.update(result.labels, truth)
        self.worst.add(index, mean_of_known(intersection_over_union(counts)), result)

    def merge(self, other: SegmentationScorer) -> None:
        self.metrics.merge(other.metrics)
        self.worst.merge(other.worst)

    def result(self) -> PixelEvaluation:
        confusion = self.metrics.confusion
        return PixelEvaluation(
            figures=self.metrics.compute(),
            class_names=self.class_names,
            indices=self.worst.indices,
            confusion=confusion,
            class_iou=intersection_over_union(confusion),
            image_iou=self.worst.qualities,
            worst_maps=self.worst.results,
        )
