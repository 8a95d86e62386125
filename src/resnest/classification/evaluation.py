"""Evaluation of a classifier: its figures, the prediction for each image, and the scorer that collects both.

result.figures, result.headline, result.worst(24)
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.classification.card import ClassificationCard
from resnest.classification.metrics import (
    CHUNK,
    ClassificationMetrics,
    MultiLabelMetrics,
    average_precision,
    binary_cross_entropy,
    chunks,
    confusion_matrix,
    count_labels,
    mean_of_known,
    ranking_values,
)
from resnest.classification.result import Classification, sigmoid, softmax
from resnest.data.samples import LabelledSamples
from resnest.errors import ResnestError, parameter
from resnest.figures import LOSS, Figure, wilson_interval
from resnest.inference.evaluation import Evaluation, Floats, Indices, recall_of_classes, share_lines
from resnest.runtime.results import THRESHOLD

FIGURES = (
    Figure("top1", "top-1", "images whose likeliest class is right"),
    Figure("top5", "top-5", "images whose class is among the five likeliest"),
    LOSS,
)
MULTI_LABEL_FIGURES = (
    Figure("map", "mAP", "mean average precision of the classes"),
    Figure("f1_micro", "F1, all labels", f"all labels together, given from a score of {THRESHOLD:.0%} on"),
    Figure("f1_macro", "F1, mean of classes", "mean of the classes"),
    LOSS,
)


@dataclass(kw_only=True)
class SingleLabelEvaluation(Evaluation):
    """Evaluation of a single-label classifier."""

    table = FIGURES
    report = "resnest.classification.report:classification_report"

    labels: NDArray[np.int64]  # (N,)
    predicted: NDArray[np.int64]  # (N,)
    scores: NDArray[np.float32]  # (N,) of the predicted class
    truth_scores: NDArray[np.float32]  # (N,) of the true class

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """(K, K), rows: truth."""
        return confusion_matrix(self.labels, self.predicted, len(self.class_names))

    @property
    def headline(self) -> str:
        low, high = self.interval
        return f"{self.titled('top1')} (95 % interval {low:.1%} to {high:.1%})"

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of top-1."""
        return self.interval_of("top1")

    def interval_of(self, figure: str) -> tuple[float, float]:
        """95 % interval of a proportion of the images, such as "top5"."""
        return wilson_interval(self.figures[figure] * self.count, self.count)

    def intervals(self) -> dict[str, tuple[float, float]]:
        return {name: self.interval_of(name) for name in ("top1", "top5") if name in self.figures}

    def lines(self) -> list[str]:
        return share_lines(self)

    @property
    def class_figures(self) -> tuple[Floats, Indices]:
        """Recall and number of images of each class."""
        return recall_of_classes(self.labels, self.predicted, len(self.class_names))

    def worst(self, most: int) -> Indices:
        """Positions of the most confident errors, worst first."""
        wrong = np.flatnonzero(self.predicted != self.labels)
        return wrong[np.argsort(-self.scores[wrong], kind="stable")][:most]

    def answer(self, position: int) -> str:
        return self.class_names[int(self.predicted[position])]

    @property
    def right(self) -> NDArray[np.bool_]:
        right: NDArray[np.bool_] = self.labels == self.predicted
        return right

    @property
    def qualities(self) -> Floats:
        return self.right.astype(np.float64)

    def resampled(self, draws: Indices) -> Floats:
        means: Floats = self.right[draws].mean(1)
        return means


@dataclass(kw_only=True)
class MultiLabelEvaluation(Evaluation):
    """Evaluation of a multi-label classifier."""

    table = MULTI_LABEL_FIGURES
    report = "resnest.classification.report:multi_label_report"

    labels: NDArray[np.bool_]  # (N, K)
    scores: NDArray[np.float32]  # (N, K)
    losses: NDArray[np.float64]  # (N,) mean over classes
    areas: NDArray[np.float64]  # (K,) average precision, NaN for a class without images

    @property
    def headline(self) -> str:
        return f"{self.titled('map')} (F1 {self.figures['f1_micro']:.2%} at {THRESHOLD:.0%})"

    def lines(self) -> list[str]:
        known = int(np.isfinite(self.areas).sum())
        _, micro, macro, _ = self.table
        return [
            f"mAP    {self.figures['map']:7.2%}   mean average precision of {known} classes",
            f"F1     {self.figures['f1_micro']:7.2%}   {micro.meaning}",
            f"F1     {self.figures['f1_macro']:7.2%}   {macro.meaning}",
        ]

    @property
    def predicted_labels(self) -> NDArray[np.bool_]:
        """The predicted labels, (N, K)."""
        return self.scores >= THRESHOLD

    @property
    def class_figures(self) -> tuple[Floats, Indices]:
        """Average precision and number of images of each class."""
        return self.areas, self.labels.sum(0)

    def recall_and_precision(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Recall and precision, (K,) each; NaN where there is nothing to count."""
        hits, predicted, true = count_labels(self.predicted_labels, self.labels)
        none = np.full(len(hits), np.nan)
        return (
            np.divide(hits, true, out=none.copy(), where=true > 0),
            np.divide(hits, predicted, out=none.copy(), where=predicted > 0),
        )

    def worst(self, most: int) -> Indices:
        """Positions of the images with a wrong or missing label and the highest loss, worst first."""
        wrong = np.flatnonzero((self.predicted_labels != self.labels).any(1))
        return wrong[np.argsort(-self.losses[wrong], kind="stable")][:most]

    @property
    def qualities(self) -> Floats:
        """The share of the classes that are rightly there or not."""
        shares: Floats = (self.predicted_labels == self.labels).mean(1)
        return shares

    def resampled(self, draws: Indices) -> Floats:
        areas = [average_precision(self.scores[rows], self.labels[rows]) for rows in draws]
        return np.array([mean_of_known(each) for each in areas])


def _multi_label(logits: NDArray[np.float32], labels: NDArray[Any], **common: Any) -> MultiLabelEvaluation:
    truth = labels.astype(bool)
    metrics = MultiLabelMetrics(logits.shape[1])
    metrics.update(logits, truth)
    scores = np.empty(logits.shape, np.float32)
    for rows in chunks(logits):
        scores[rows] = sigmoid(logits[rows])
    return MultiLabelEvaluation(
        figures=metrics.compute(),
        labels=truth,
        scores=scores,
        losses=binary_cross_entropy(logits, truth),
        areas=average_precision(logits, truth),
        **common,
    )


class ClassificationScorer:
    """Scorer of a classifier: top-k; if multi-label, mean average precision and F1.

    Of a single-label image it keeps a few numbers. Average precision ranks all images: of several labels it keeps the
    logits.
    """

    def __init__(self, samples: LabelledSamples, card: ClassificationCard) -> None:
        self.class_names, self.multi_label = card.class_names, card.multi_label
        self.several_labels = False
        self.rows: list[tuple[int, Any, NDArray[np.float32]]] = []  # index, label or labels, logits (K,)
        self.metrics = ClassificationMetrics(len(card.class_names))
        self.indices: list[int] = []  # of the images in `metrics`
        self.scores: list[NDArray[np.float32]] = []  # (n, 2): of the predicted and the true class

    def update(self, index: int, result: Classification, truth: Any) -> None:
        assert result.logits is not None
        if isinstance(truth, CorrectLabels):  # the best-ranked of several right ones
            self.several_labels, truth = True, best_correct_label(truth, result.logits)
        self.rows.append((index, truth, result.logits))
        if not self.multi_label and len(self.rows) * len(self.class_names) >= CHUNK:
            self._count()

    def _count(self) -> None:
        """Work out the figures of the waiting images, and forget their logits."""
        if not self.rows:
            return
        indices, labels, logits = zip(*self.rows, strict=True)
        truth, values = np.array(labels, np.int64), np.stack(logits)
        self.metrics.update(values, truth)
        self.indices += indices
        columns = np.stack([ranking_values(values).argmax(1), truth], 1)
        self.scores.append(np.take_along_axis(softmax(values), columns, 1))
        self.rows = []

    def merge(self, other: ClassificationScorer) -> None:
        self.rows += other.rows
        self.metrics.merge(other.metrics)
        self.indices += other.indices
        self.scores += other.scores
        self.several_labels |= other.several_labels

    def result(self) -> Evaluation:
        """The evaluation, in the order of the samples: they are interleaved over processes."""
        if not self.rows and not self.indices:
            raise ResnestError("no image could be used")
        evaluation = self._several_labels() if self.multi_label else self._single_label()
        if self.several_labels:
            del evaluation.figures["loss"]  # which of several right answers should have been likely is not defined
        return evaluation

    def _single_label(self) -> SingleLabelEvaluation:
        self._count()
        indices = np.array(self.indices, np.int64)
        order = np.argsort(indices)
        scores = np.concatenate(self.scores)[order]
        return SingleLabelEvaluation(
            figures=self.metrics.compute(),
            class_names=self.class_names,
            indices=indices[order],
            labels=np.concatenate(self.metrics.labels)[order],
            predicted=np.concatenate(self.metrics.predicted)[order],
            scores=scores[:, 0],
            truth_scores=scores[:, 1],
        )

    def _several_labels(self) -> MultiLabelEvaluation:
        indices, labels, logits = map(np.stack, zip(*sorted(self.rows, key=itemgetter(0)), strict=True))
        return _multi_label(logits, labels, indices=indices, class_names=self.class_names)


# --- ImageNet-ReaL: several correct labels per image, or none (Beyer et al., arXiv 2006.07159) ---

_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})")


@dataclass(frozen=True)
class RealLabels:
    """Correct labels by validation image number, which its file name has; numbers start at 1."""

    labels: Sequence[Sequence[int]]

    @classmethod
    def read(cls, path: Path, num_classes: int) -> RealLabels:
        """Raises ResnestError for a file that is not a list of lists of class indices."""
        try:
            labels = json.loads(path.read_text(encoding="utf-8"))
            for number, row in enumerate(labels, start=1):
                if not isinstance(row, list) or any(
                    type(index) is not int or index not in range(num_classes) for index in row
                ):
                    raise ValueError(
                        f"entry {number} is {json.dumps(row)[:40]}, not a list of indices below {num_classes}"
                    )
        except (OSError, ValueError, TypeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ResnestError(f"{parameter('labels', path)} is not ImageNet-ReaL's real.json: {reason}") from None
        return cls(labels)

    def of(self, key: str) -> Sequence[int]:
        """The correct labels of an image, by its file name."""
        match, option = _NUMBER.search(key), parameter("labels")
        if match is None:
            raise ResnestError(
                f"{option}: {key} has no number of an ImageNet validation image (ILSVRC2012_val_00000001)"
            )
        number = int(match[1])
        if not 1 <= number <= len(self.labels):
            raise ResnestError(f"{option}: {key} is image {number}, and there are labels for {len(self.labels)}")
        return self.labels[number - 1]


class CorrectLabels(tuple[int, ...]):
    """The correct labels of an image."""


@dataclass(frozen=True)
class RealSamples(LabelledSamples):
    """Images with several correct labels each, instead of one."""

    real: RealLabels

    def example(self, index: int) -> tuple[Image.Image, CorrectLabels]:
        return self.decode(index), CorrectLabels(self.real.of(self.keys[index]))


def relabel(samples: LabelledSamples, path: Path, card: ClassificationCard) -> RealSamples:
    """The samples with a correct label in ImageNet-ReaL's file.

    Raises:
        ResnestError: a multi-label model, an invalid file, a file name without the image's number,
            or no image left.
    """
    if samples.multi_label:
        raise ResnestError(f"{parameter('labels')} replaces one label an image: leave it out for a multi-label model")
    real = RealLabels.read(path, len(card.class_names))
    chosen = np.flatnonzero([bool(real.of(key)) for key in samples.keys])
    if not len(chosen):
        raise ResnestError(f"{parameter('labels')}: not one of the images has a label in that file")
    part = samples.subset(chosen)
    return RealSamples(part.store, part.keys, part.class_names, part.labels, real)


def best_correct_label(labels: Sequence[int], logits: NDArray[np.floating]) -> int:
    """The correct label with the highest of the logits (K,): it is in the top k if any of them is."""
    ordered = sorted(labels)
    return ordered[int(np.argmax(logits[ordered]))]
