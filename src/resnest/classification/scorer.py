"""Scores of a classifier: top-k, or of several labels an image mean average precision and F1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.classification.card import ClassificationCard
from resnest.classification.evaluation import collect
from resnest.classification.imagenet_real import Answers, best_answer
from resnest.classification.result import Classification
from resnest.data.samples import LabelledSamples
from resnest.inference.evaluation_result import Evaluation


class ClassificationScorer:
    """Keeps the logits of every image, since figures are worked out in their order, in float64."""

    def __init__(self, samples: LabelledSamples, card: ClassificationCard) -> None:
        self.class_names, self.multi_label = card.class_names, card.multi_label
        self.several_answers = False
        self.rows: list[tuple[int, Any, NDArray[np.float32]]] = []  # index, label or labels, logits (K,)

    def update(self, index: int, result: Classification, truth: Any) -> None:
        assert result.logits is not None
        if isinstance(truth, Answers):  # the best-ranked of several right ones
            self.several_answers, truth = True, best_answer(truth, result.logits)
        self.rows.append((index, truth, result.logits))

    def merge(self, other: ClassificationScorer) -> None:
        self.rows += other.rows
        self.several_answers |= other.several_answers

    def result(self) -> Evaluation:
        columns = [tuple(np.stack(column) for column in zip(*self.rows, strict=True))] if self.rows else []
        evaluation = collect(columns, self.class_names, multi_label=self.multi_label)  # type: ignore[arg-type]
        if self.several_answers:
            del evaluation.figures["loss"]  # which of several right answers should have been likely is not defined
        return evaluation
