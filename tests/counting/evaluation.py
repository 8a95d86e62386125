"""How often a counter is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counting.result import Count
from resnest.errors import ResnestError
from resnest.figures import Figure, percent
from resnest.inference.evaluation import Evaluation, Floats, Indices

FIGURES = (
    Figure("exact", "exact", "pictures whose count is right"),
    Figure("near", "near", "off by one at most"),
    Figure("loss", "loss", "mean squared error", higher_is_better=False),
)


@dataclass(kw_only=True)
class CountingEvaluation(Evaluation):
    """Of a counter."""

    table = FIGURES
    report = "counting.report:counting_report"

    errors: NDArray[np.int64]  # (N,) by how much counts are wrong

    @property
    def headline(self) -> str:
        return self.titled("exact")

    def lines(self) -> list[str]:
        return [f"{one.title:<6} {percent(self.figures[one.key]):>7}   {one.meaning}" for one in self.table[:2]]

    @property
    def class_figures(self) -> tuple[Floats, Indices]:
        return np.array([self.figures["exact"]]), np.array([self.count])

    def worst(self, most: int) -> Indices:
        order = np.argsort(-np.abs(self.errors), kind="stable")
        return order[self.errors[order] != 0][:most]


class CountingScorer:
    """Keeps the count of every picture."""

    def __init__(self, samples: Any, card: Any) -> None:
        self.class_names = card.class_names
        self.rows: dict[int, tuple[Count, float]] = {}  # index: result, truth

    def update(self, index: int, result: Count, truth: float) -> None:
        self.rows[index] = result, truth

    def merge(self, other: CountingScorer) -> None:
        self.rows |= other.rows

    def result(self) -> CountingEvaluation:
        if not self.rows:
            raise ResnestError("no image could be used")
        rows = [self.rows[index] for index in sorted(self.rows)]
        errors = np.array([result.count - round(truth) for result, truth in rows])
        return CountingEvaluation(
            figures={
                "exact": float((errors == 0).mean()),
                "near": float((np.abs(errors) <= 1).mean()),
                "loss": float(np.mean([(result.value - truth) ** 2 for result, truth in rows])),
            },
            class_names=self.class_names,
            indices=np.array(sorted(self.rows)),
            errors=errors,
        )
