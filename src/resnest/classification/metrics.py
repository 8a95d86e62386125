"""Metrics of a classifier: top-1 and top-5 of one label an image; mean average precision and F1 of several.

metrics = ClassificationMetrics(num_classes=10)          # MultiLabelMetrics: labels are (N, K) of 0 and 1
metrics.update(logits, labels)            # (N, K), (N,)
metrics.compute()["top1"]                 # fraction 0..1
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

F = TypeVar("F", bound=np.floating[Any])
CHUNK = 2**20  # logits that are worked on at once: 8 MiB in float64, however many classes there are


class ClassificationMetrics:
    """Counts, so that the result depends on neither batching nor the order of samples.

    A few numbers an image are kept, nothing of the size of classes x classes or images x classes. `top5` is left out
    for five classes or fewer, where it is meaningless.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.labels: list[NDArray[np.int64]] = []
        self.predicted: list[NDArray[np.int64]] = []
        self.losses: list[NDArray[np.float64]] = []
        self.in_top5 = 0

    @property
    def confusion(self) -> NDArray[np.int64]:
        """(K, K), rows: truth, columns: prediction."""
        return confusion_matrix(_joined(self.labels), _joined(self.predicted), self.num_classes)

    def update(self, logits: NDArray[np.floating], labels: NDArray[np.integer]) -> None:
        """Add a batch: logits (N, K), labels (N,). Equal logits rank by class index."""
        for rows in chunks(logits):
            self._add(logits[rows].astype(np.float64), labels[rows].astype(np.int64))

    def _add(self, logits: NDArray[np.float64], labels: NDArray[np.int64]) -> None:
        ranked = ranking_values(logits)
        truth = np.take_along_axis(ranked, labels[:, None], 1)
        before = (ranked > truth).sum(1)  # classes that rank before the true one
        before += ((ranked == truth) & (np.arange(self.num_classes) < labels[:, None])).sum(1)
        self.in_top5 += int((before < 5).sum())
        self.labels.append(labels)
        self.predicted.append(ranked.argmax(1))
        shifted = logits - logits.max(1, keepdims=True)
        self.losses.append(np.log(np.exp(shifted).sum(1)) - np.take_along_axis(shifted, labels[:, None], 1)[:, 0])

    def merge(self, other: ClassificationMetrics) -> None:
        """Add what another accumulator (another process) has counted."""
        self.labels += other.labels
        self.predicted += other.predicted
        self.losses += other.losses
        self.in_top5 += other.in_top5

    def compute(self) -> dict[str, float]:
        """Fractions 0..1; NaN where nothing was counted."""
        labels = _joined(self.labels)
        count = len(labels)
        if count == 0:
            return {"top1": math.nan, "loss": math.nan}
        figures = {"top1": int((labels == _joined(self.predicted)).sum()) / count}
        if self.num_classes > 5:
            figures["top5"] = self.in_top5 / count
        # fsum is exact, so that the mean does not depend on the order of the samples
        figures["loss"] = math.fsum(np.concatenate(self.losses).tolist()) / count
        return figures


def ranking_values(logits: NDArray[F]) -> NDArray[F]:
    """The logits to rank by: what is not a number comes last."""
    return np.where(np.isnan(logits), np.array(-np.inf, logits.dtype), logits)


def confusion_matrix(labels: NDArray[np.int64], predicted: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """(K, K), rows: truth, columns: prediction; 3 GB for 20,000 classes."""
    matrix = np.zeros((count, count), np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix


def _joined(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


Floats = NDArray[np.float64]


class MultiLabelMetrics:
    """Stores every score, so that the result depends on neither batching nor the order of samples.

    `map` is the mean of `average_precision` over the classes that have images; `f1_micro` and `f1_macro` take a label
    as given where its score is 0.5 or more, the latter over the classes that occur in truth or prediction.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.logits: list[NDArray[np.float32]] = []
        self.labels: list[NDArray[np.bool_]] = []

    def update(self, logits: NDArray[np.floating], labels: NDArray[np.generic]) -> None:
        """Add a batch: logits (N, K), labels (N, K)."""
        self.logits.append(logits.astype(np.float32))
        self.labels.append(labels.astype(bool))

    def merge(self, other: MultiLabelMetrics) -> None:
        """Add what another accumulator (another process) has collected."""
        self.logits += other.logits
        self.labels += other.labels

    def compute(self) -> dict[str, float]:
        """Fractions 0..1, loss in nats; NaN where nothing was counted."""
        logits, labels = self.collected()
        hits, predicted, true = count_labels(logits >= 0, labels)
        losses = binary_cross_entropy(logits, labels)
        counted = predicted + true > 0
        return {
            "map": mean_of_known(average_precision(logits, labels)),
            "f1_micro": float(2 * hits.sum() / (predicted + true).sum()) if counted.any() else math.nan,
            "f1_macro": mean_of_known(2 * hits[counted] / (predicted + true)[counted]),
            # fsum is exact, so that the mean does not depend on the order of the samples
            "loss": math.fsum(losses.tolist()) / len(losses) if len(losses) else math.nan,
        }

    def collected(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Logits and labels collected so far, both (N, K)."""
        if len(self.logits) == 1:
            return self.logits[0], self.labels[0]
        none = np.zeros((0, self.num_classes))
        return (
            np.concatenate([none.astype(np.float32), *self.logits]),
            np.concatenate([none.astype(bool), *self.labels]),
        )


def average_precision(scores: NDArray[np.floating], labels: NDArray[np.bool_]) -> Floats:
    """Area under each class's precision-recall steps, (K,); NaN for a class without images.

    Every distinct score is a threshold, and precision is not interpolated, as in scikit-learn. (PASCAL VOC, from 2010
    on, raises precision to the highest at any larger recall and so reports a little more.)
    """
    return np.array([_class_ap(score, label) for score, label in zip(scores.T, labels.T, strict=True)], np.float64)


def _class_ap(scores: NDArray[np.floating], labels: NDArray[np.bool_]) -> float:
    """Average precision of one class: (N,), (N,)."""
    if not labels.any():
        return math.nan
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # the last place of every distinct score
    hits = np.cumsum(labels[order])[ends]
    precision = hits / (ends + 1)
    return float((precision * np.diff(hits, prepend=0)).sum() / hits[-1])


def count_labels(predicted: NDArray[np.bool_], true: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """For each class: correct predicted labels, predicted labels, true labels; (K,) each."""
    hits, all_predicted, all_true = ((part.sum(0).astype(np.float64)) for part in (predicted & true, predicted, true))
    return hits, all_predicted, all_true


def binary_cross_entropy(logits: NDArray[np.floating], labels: NDArray[np.bool_]) -> Floats:
    """Binary cross-entropy per image, averaged over classes: (N, K), (N, K) -> (N,), without overflow."""
    losses = np.empty(len(logits))
    for rows in chunks(logits):
        values = logits[rows].astype(np.float64)
        terms = np.maximum(values, 0) - values * labels[rows] + np.log1p(np.exp(-np.abs(values)))
        losses[rows] = terms.mean(1)
    return losses


def chunks(logits: NDArray[Any]) -> Iterator[slice]:
    """Rows of (N, K) to work on at once, CHUNK logits each."""
    rows = max(1, CHUNK // max(1, logits.shape[1]))
    yield from (slice(start, start + rows) for start in range(0, len(logits), rows))


def mean_of_known(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return math.fsum(known.tolist()) / len(known) if len(known) else math.nan
