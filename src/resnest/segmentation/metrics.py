"""Pixel metrics of a segmenter: the confusion matrix, mean IoU and accuracies.

metrics = PixelMetrics(11)
metrics.update(labels, truth)            # (H, W) each; 255 in the truth does not count
metrics.compute()                        # {"miou": 0.62, "pixel_accuracy": 0.89, "mean_accuracy": 0.71}

The matrix has integer counts, so figures do not depend on how images are distributed over processes or batches.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from resnest.segmentation.card import IGNORED

Counts = NDArray[np.int64]
Fractions = NDArray[np.float64]


class PixelMetrics:
    """Sums over pictures; `confusion` is (K, K): true class, predicted class."""

    def __init__(self, num_classes: int) -> None:
        self.confusion = np.zeros((num_classes, num_classes), np.int64)

    def update(self, labels: NDArray[np.uint8], truth: NDArray[np.uint8]) -> Counts:
        """Add one picture, both (H, W); returns its own matrix."""
        table = confusion_of(labels, truth, len(self.confusion))
        self.confusion += table
        return table

    def merge(self, other: PixelMetrics) -> None:
        """Add the state of another process's metrics."""
        self.confusion += other.confusion

    def compute(self) -> dict[str, float]:
        """Fractions; NaN if all pixels are ignored."""
        total, right = self.confusion.sum(), np.diag(self.confusion)
        return {
            "miou": mean_of_known(intersection_over_union(self.confusion)),
            "pixel_accuracy": float(right.sum() / total) if total else float("nan"),
            "mean_accuracy": mean_of_known(_divide(right, self.confusion.sum(1))),
        }


def confusion_of(labels: NDArray[np.uint8], truth: NDArray[np.uint8], num_classes: int) -> Counts:
    """(K, K) pixels by true and predicted class."""
    known = truth != IGNORED
    pairs = truth[known].astype(np.int64) * num_classes + labels[known]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def intersection_over_union(confusion: Counts) -> Fractions:
    """(K, K) -> (K,), NaN for a class that is neither true nor predicted anywhere."""
    right = np.diag(confusion)
    return _divide(right, confusion.sum(0) + confusion.sum(1) - right)


def mean_of_known(values: Fractions) -> float:
    """Mean without NaN."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _divide(part: Counts, total: Counts) -> Fractions:
    fractions: Fractions = np.divide(part, total, out=np.full(len(part), np.nan), where=total > 0)
    return fractions
