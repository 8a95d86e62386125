"""Scores of a segmenter: mean IoU and accuracies over all pixels, and each picture's own mean IoU."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from resnest.inference.worst import WorstPictures
from resnest.segmentation.card import SegmentationCard
from resnest.segmentation.data import PixelSamples
from resnest.segmentation.evaluation import PixelEvaluation, collect_pixels
from resnest.segmentation.metrics import PixelMetrics, intersection_over_union, mean_of_known
from resnest.segmentation.result import LabelMap


class SegmentationScorer:
    """Counts pixels in whole numbers."""

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
        return collect_pixels(self.metrics, self.worst, self.class_names)
