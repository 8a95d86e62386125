"""Top-1, top-5, cross-entropy and the confusion matrix of a classifier.

metrics = ClassificationMetrics(num_classes=10)
metrics.update(logits, labels)            # (N, K), (N,)
metrics.compute()["top1"]                 # fraction 0..1
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


class ClassificationMetrics:
    """Counts, so that the result depends on neither batching nor the order of samples.

    `top5` is left out for five classes or fewer, where it is meaningless.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.confusion = np.zeros((num_classes, num_classes), np.int64)  # rows: truth, columns: prediction
        self.in_top5 = 0
        self.losses: list[NDArray[np.float64]] = []

    def update(self, logits: NDArray[np.floating], labels: NDArray[np.integer]) -> None:
        """Add a batch: logits (N, K), labels (N,). Equal logits rank by class index."""
        logits = logits.astype(np.float64)
        ranking = np.argsort(-logits, axis=1, kind="stable")
        np.add.at(self.confusion, (labels, ranking[:, 0]), 1)
        self.in_top5 += int((ranking[:, :5] == labels[:, None]).any(1).sum())
        shifted = logits - logits.max(1, keepdims=True)
        truth = np.take_along_axis(shifted, labels[:, None].astype(np.int64), 1)[:, 0]
        self.losses.append(np.log(np.exp(shifted).sum(1)) - truth)

    def merge(self, other: ClassificationMetrics) -> None:
        """Add what another accumulator (another process) has counted."""
        self.confusion += other.confusion
        self.in_top5 += other.in_top5
        self.losses += other.losses

    def compute(self) -> dict[str, float]:
        """Fractions 0..1; NaN where nothing was counted."""
        count = int(self.confusion.sum())
        if count == 0:
            return {"top1": math.nan, "loss": math.nan}
        figures = {"top1": float(np.trace(self.confusion) / count)}
        if self.num_classes > 5:
            figures["top5"] = self.in_top5 / count
        # fsum is exact, so that the mean does not depend on the order of the samples
        figures["loss"] = math.fsum(np.concatenate(self.losses).tolist()) / count
        return figures
