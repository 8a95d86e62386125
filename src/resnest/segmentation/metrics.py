"""Pixel metrics of a segmenter: IoU and Dice of classes, over all pixels and by picture; accuracies.

metrics = PixelMetrics(11)
metrics.update(labels, truth)            # (H, W) each; 255 in the truth does not count
metrics.compute()                        # {"miou": 0.62, "pixel_accuracy": 0.89, "mean_accuracy": 0.71, "dice": ...}
metrics = MaskMetrics(4)                 # several classes a pixel
metrics.update(masks, truth)             # (K, H, W) bool, (K, H, W) uint8: 0, 1, 255

Means over classes leave out a class that is neither true nor predicted; predicted in vain it counts, with 0. By picture
that holds in each picture, and a picture in which no class is true or predicted is left out. Counts are integers and
sums of fractions exact, so figures do not depend on how images are distributed over processes or batches.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from resnest.segmentation.card import IGNORED

Counts = NDArray[np.int64]
Fractions = NDArray[np.float64]


class OverlapMetrics:
    """Sums over pictures; `overlap` is (K, 3): pixels that are true and predicted, predicted, true."""

    def __init__(self, num_classes: int) -> None:
        self.overlap = np.zeros((num_classes, 3), np.int64)
        self.pictures: list[tuple[float, float]] = []  # mean IoU and Dice of each; NaN without a class

    def add(self, overlap: Counts) -> float:
        """Add a picture; returns its mean IoU."""
        self.overlap += overlap
        self.pictures.append(
            (mean_of_known(intersection_over_union(overlap)), mean_of_known(dice_coefficient(overlap)))
        )
        return self.pictures[-1][0]

    def merge(self, other: OverlapMetrics) -> None:
        """Add the state of another process's metrics."""
        self.overlap += other.overlap
        self.pictures += other.pictures

    def overlaps(self) -> dict[str, float]:
        """Fractions; NaN if all pixels are ignored."""
        together = self.overlap.sum(0, keepdims=True)
        known = [both for both in self.pictures if not math.isnan(both[0])]
        iou, dice = (math.fsum(part) / len(known) for part in zip(*known, strict=True)) if known else (math.nan,) * 2
        return {
            "dice": mean_of_known(dice_coefficient(self.overlap)),
            "iou_micro": float(intersection_over_union(together)[0]),
            "dice_micro": float(dice_coefficient(together)[0]),
            "iou_image": iou,
            "dice_image": dice,
        }


class PixelMetrics(OverlapMetrics):
    """One class a pixel; `confusion` is (K, K): true class, predicted class."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.confusion = np.zeros((num_classes, num_classes), np.int64)

    def update(self, labels: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
        """Add one picture, both (H, W); returns its mean IoU."""
        table = confusion_of(labels, truth, len(self.confusion))
        self.confusion += table
        return self.add(overlap_of_confusion(table))

    def merge(self, other: OverlapMetrics) -> None:
        assert isinstance(other, PixelMetrics)
        super().merge(other)
        self.confusion += other.confusion

    def compute(self) -> dict[str, float]:
        """Fractions; NaN if all pixels are ignored."""
        total, right = self.confusion.sum(), np.diag(self.confusion)
        return {
            "miou": mean_of_known(intersection_over_union(self.overlap)),
            "pixel_accuracy": float(right.sum() / total) if total else float("nan"),
            "mean_accuracy": mean_of_known(_divide(right, self.confusion.sum(1))),
            **self.overlaps(),
        }


class MaskMetrics(OverlapMetrics):
    """A yes or no for every class of a pixel; `known` is (K,): pixels that count."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.known = np.zeros(num_classes, np.int64)

    def update(self, masks: NDArray[np.bool_], truth: NDArray[np.uint8]) -> float:
        """Add one picture, both (K, H, W); returns its mean IoU."""
        self.known += (truth != IGNORED).sum((1, 2))
        return self.add(overlap_of_masks(masks, truth))

    def merge(self, other: OverlapMetrics) -> None:
        assert isinstance(other, MaskMetrics)
        super().merge(other)
        self.known += other.known

    def compute(self) -> dict[str, float]:
        """Fractions; NaN if no class is true or predicted anywhere."""
        return {"miou": mean_of_known(intersection_over_union(self.overlap)), **self.overlaps()}


def confusion_of(labels: NDArray[np.uint8], truth: NDArray[np.uint8], num_classes: int) -> Counts:
    """(K, K) pixels by true and predicted class."""
    known = truth != IGNORED
    pairs = truth[known].astype(np.int64) * num_classes + labels[known]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def overlap_of_confusion(confusion: Counts) -> Counts:
    """(K, K) -> (K, 3) pixels that are true and predicted, predicted, true."""
    return np.stack([np.diag(confusion), confusion.sum(0), confusion.sum(1)], 1)


def overlap_of_masks(masks: NDArray[np.bool_], truth: NDArray[np.uint8]) -> Counts:
    """(K, H, W) both -> (K, 3) pixels that are true and predicted, predicted, true, without ignored ones."""
    true, predicted = truth == 1, masks & (truth != IGNORED)
    return np.stack([part.sum((1, 2)) for part in (true & predicted, predicted, true)], 1)


def intersection_over_union(overlap: Counts) -> Fractions:
    """(K, 3) -> (K,), NaN for a class that is neither true nor predicted anywhere."""
    right, predicted, true = overlap.T
    return _divide(right, predicted + true - right)


def dice_coefficient(overlap: Counts) -> Fractions:
    """(K, 3) -> (K,), the F1 score of pixels; NaN for a class that is neither true nor predicted anywhere."""
    right, predicted, true = overlap.T
    return _divide(2 * right, predicted + true)


def precision_and_recall(overlap: Counts) -> tuple[Fractions, Fractions]:
    """(K, 3) -> (K,) both: of predicted and of true pixels, those that are both; NaN where there are none."""
    right, predicted, true = overlap.T
    return _divide(right, predicted), _divide(right, true)


def mean_of_known(values: Fractions) -> float:
    """Mean without NaN."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _divide(part: Counts, total: Counts) -> Fractions:
    fractions: Fractions = np.divide(part, total, out=np.full(len(part), np.nan), where=total > 0)
    return fractions
