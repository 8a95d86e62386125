"""What evaluating a classifier gave: its figures, and what was said of every image.

result.figures, result.headline, result.worst(24)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.errors import ResnestError
from resnest.metrics import ClassificationMetrics, MultiLabelMetrics, wilson_interval
from resnest.metrics.multilabel import average_precision, binary_cross_entropy, count_labels
from resnest.runtime.classification import sigmoid, softmax
from resnest.runtime.results import THRESHOLD

CHUNK = 1024  # images whose metrics are worked out at once, in float64
MAX_BAD_SHARE = 0.05  # of a data set's images: more than that is a broken data set, not a few broken files (P11)
Indices = NDArray[np.int64]
Rows = Sequence[tuple[Indices, NDArray[Any], NDArray[np.float32]]]  # indices (N,), labels, logits (N, K)


@dataclass(kw_only=True)
class Evaluation:
    """What every kind of evaluation has."""

    counted = "images"  # what `per_class` counts

    figures: dict[str, float]  # fractions; loss in nats
    class_names: tuple[str, ...]
    indices: Indices  # (N,) into the samples
    bad: list[tuple[str, str]] = field(default_factory=list)  # unusable files: key, reason
    seconds: float = 0.0

    @property
    def count(self) -> int:
        return len(self.indices)

    @property
    def headline(self) -> str:
        """The monitored figure, for people."""
        raise NotImplementedError

    def lines(self) -> list[str]:
        """All figures but the loss, for people, one a line."""
        raise NotImplementedError

    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % intervals of the figures that are shares of the images."""
        return {}

    def per_class(self) -> list[tuple[str, float | None, int]]:
        """Name, figure and number of images, or objects, of each class; None where there is none."""
        raise NotImplementedError

    def worst(self, most: int) -> Indices:
        """Positions of the worst mistakes, worst first."""
        raise NotImplementedError


@dataclass(kw_only=True)
class ClassEvaluation(Evaluation):
    """Of a classifier that gives one label."""

    confusion: NDArray[np.int64]  # (K, K), rows: truth
    labels: NDArray[np.int64]  # (N,)
    predicted: NDArray[np.int64]  # (N,)
    scores: NDArray[np.float32]  # (N,) of the predicted class
    truth_scores: NDArray[np.float32]  # (N,) of the true class

    @property
    def headline(self) -> str:
        low, high = self.interval
        return f"top-1 {self.figures['top1']:.2%} (95 % interval {low:.1%} to {high:.1%})"

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of top-1."""
        return self.interval_of("top1")

    def interval_of(self, figure: str) -> tuple[float, float]:
        """95 % interval of a share of the images, such as "top5"."""
        return wilson_interval(self.figures[figure] * self.count, self.count)

    def intervals(self) -> dict[str, tuple[float, float]]:
        return {name: self.interval_of(name) for name in ("top1", "top5") if name in self.figures}

    def lines(self) -> list[str]:
        return [
            f"top-{name.removeprefix('top')}  {self.figures[name]:7.2%}   95 % interval {low:.1%} to {high:.1%}"
            for name, (low, high) in self.intervals().items()
        ]

    def per_class(self) -> list[tuple[str, float | None, int]]:
        """Name, share found (recall) and number of images of each class; None where there is no image."""
        counts = self.confusion.sum(1)
        return [
            (name, float(self.confusion[k, k] / counts[k]) if counts[k] else None, int(counts[k]))
            for k, name in enumerate(self.class_names)
        ]

    def worst(self, most: int) -> Indices:
        """Positions of the most confident mistakes, worst first."""
        wrong = np.flatnonzero(self.predicted != self.labels)
        return wrong[np.argsort(-self.scores[wrong], kind="stable")][:most]


@dataclass(kw_only=True)
class MultiLabelEvaluation(Evaluation):
    """Of a classifier that gives any number of labels."""

    labels: NDArray[np.bool_]  # (N, K)
    scores: NDArray[np.float32]  # (N, K)
    losses: NDArray[np.float64]  # (N,) mean over classes
    areas: NDArray[np.float64]  # (K,) average precision, NaN for a class without images

    @property
    def headline(self) -> str:
        return f"mAP {self.figures['map']:.2%} (F1 {self.figures['f1_micro']:.2%} at {THRESHOLD:.0%})"

    def lines(self) -> list[str]:
        known = int(np.isfinite(self.areas).sum())
        return [
            f"mAP    {self.figures['map']:7.2%}   mean average precision of {known} classes",
            f"F1     {self.figures['f1_micro']:7.2%}   all labels together, given from a score of {THRESHOLD:.0%} on",
            f"F1     {self.figures['f1_macro']:7.2%}   mean of the classes",
        ]

    @property
    def given(self) -> NDArray[np.bool_]:
        """The labels that it gives, (N, K)."""
        return self.scores >= THRESHOLD

    def per_class(self) -> list[tuple[str, float | None, int]]:
        """Name, average precision and number of images of each class; None where there is no image."""
        counts = self.labels.sum(0)
        return [
            (name, float(area) if count else None, int(count))
            for name, area, count in zip(self.class_names, self.areas, counts, strict=True)
        ]

    def recall_and_precision(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of the labels given, twice (K,); NaN where there is nothing to count."""
        hits, given, true = count_labels(self.given, self.labels)
        none = np.full(len(hits), np.nan)
        return (
            np.divide(hits, true, out=none.copy(), where=true > 0),
            np.divide(hits, given, out=none.copy(), where=given > 0),
        )

    def worst(self, most: int) -> Indices:
        """Positions of the images with a wrong or missing label and the highest loss, worst first."""
        wrong = np.flatnonzero((self.given != self.labels).any(1))
        return wrong[np.argsort(-self.losses[wrong], kind="stable")][:most]


def check_bad_share(bad: int, total: int, last: tuple[str, str] | None) -> None:
    """Raises ResnestError once too many files of a data set are unusable."""
    if bad > MAX_BAD_SHARE * total and last:
        raise ResnestError(
            f"{bad} of {total} images cannot be used, more than {MAX_BAD_SHARE:.0%}; the last one is {last[0]}:"
            f" {last[1]}. `resnest doctor --data` lists them all"
        )


def collect(
    rows: Rows, class_names: tuple[str, ...], *, multi_label: bool, bad: list[tuple[str, str]], seconds: float
) -> Evaluation:
    """The evaluation of all batches together, in the order of the samples: processes take turns.

    Raises:
        ResnestError: there is none.
    """
    if not rows:
        raise ResnestError("not one image could be used")
    indices, labels, logits = (np.concatenate(column) for column in zip(*rows, strict=True))
    order = np.argsort(indices, kind="stable")
    build = _multi_label if multi_label else _one_label
    return build(
        logits[order],
        labels[order],
        indices=indices[order],
        class_names=class_names,
        bad=bad,
        seconds=seconds,
    )


def _one_label(logits: NDArray[np.float32], labels: NDArray[Any], **common: Any) -> ClassEvaluation:
    metrics = ClassificationMetrics(logits.shape[1])
    for start in range(0, len(logits), CHUNK):
        metrics.update(logits[start : start + CHUNK], labels[start : start + CHUNK])
    places, predicted, scores = np.arange(len(labels)), logits.argmax(1), softmax(logits)
    return ClassEvaluation(
        figures=metrics.compute(),
        confusion=metrics.confusion,
        labels=labels,
        predicted=predicted,
        scores=scores[places, predicted],
        truth_scores=scores[places, labels],
        **common,
    )


def _multi_label(logits: NDArray[np.float32], labels: NDArray[Any], **common: Any) -> MultiLabelEvaluation:
    truth = labels.astype(bool)
    metrics = MultiLabelMetrics(logits.shape[1])
    metrics.update(logits, truth)
    return MultiLabelEvaluation(
        figures=metrics.compute(),
        labels=truth,
        scores=sigmoid(logits),
        losses=binary_cross_entropy(logits, truth),
        areas=average_precision(logits, truth),
        **common,
    )
