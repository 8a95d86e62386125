"""The section on confusions: which class was taken for which, as a heat map or, of many classes, the largest entries.

confusions = Confusions.of_pairs(labels, predicted, classes=20_000)        # one pair an image
confusion_section(confusions, names), recall_and_precision(confusions)

Rows are the truth, columns the prediction. Cells hold numbers of images; for pixels, percentages of the row. A class
without images has no recall, and a class that was never predicted no precision: both are NaN, printed as "-".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from resnest.report.page import Section, clip, count, percent, render
from resnest.report.parts import Column, empty, table

MAX_MATRIX = 25  # classes; beyond that the cells no longer hold their counts
MAX_PAIRS = 20

Counted = Literal["images", "pixels"]
Integers = NDArray[np.int64]
Fractions = NDArray[np.float64]


@dataclass(frozen=True)
class Confusions:
    """The entries of a confusion matrix that are not 0, row by row: a full one of 20,000 classes takes 3.2 GB."""

    classes: int
    truth: Integers  # (P,)
    predicted: Integers  # (P,)
    counts: Integers  # (P,)

    @classmethod
    def of_matrix(cls, matrix: NDArray[Any]) -> Confusions:
        """Of a matrix (K, K)."""
        truth, predicted = np.nonzero(matrix)
        return cls(len(matrix), truth, predicted, matrix[truth, predicted].astype(np.int64))

    @classmethod
    def of_pairs(cls, labels: Integers, predicted: Integers, classes: int) -> Confusions:
        """Of the true and the predicted class of each image, (N,)."""
        pairs, counts = np.unique(labels * classes + predicted, return_counts=True)
        return cls(classes, *np.divmod(pairs, classes), counts.astype(np.int64))

    def true(self) -> Integers:
        """(K,) all of each class."""
        return self._summed(self.truth, self.counts)

    def given(self) -> Integers:
        """(K,) all predictions of each class."""
        return self._summed(self.predicted, self.counts)

    def right(self) -> Integers:
        """(K,) correct predictions."""
        return self._summed(self.truth, np.where(self.truth == self.predicted, self.counts, 0))

    def wrong(self) -> Confusions:
        """Without the diagonal."""
        kept = self.truth != self.predicted
        return Confusions(self.classes, self.truth[kept], self.predicted[kept], self.counts[kept])

    def matrix(self) -> Integers:
        """(K, K), of few classes."""
        matrix = np.zeros((self.classes, self.classes), np.int64)
        matrix[self.truth, self.predicted] = self.counts
        return matrix

    def _summed(self, places: Integers, counts: Integers) -> Integers:
        sums = np.zeros(self.classes, np.int64)
        np.add.at(sums, places, counts)
        return sums


class Cell(NamedTuple):
    """One entry of the drawn matrix."""

    text: str
    title: str
    shade: str  # opacity
    kind: Literal["none", "", "mid", "full"]  # decides the colour of the text


def recall_and_precision(confusions: Confusions) -> tuple[Fractions, Fractions]:
    """Two arrays (K,) of fractions, NaN where undefined."""
    right = confusions.right()
    return _divide(right, confusions.true()), _divide(right, confusions.given())


def largest_confusions(confusions: Confusions, limit: int = MAX_PAIRS) -> list[tuple[int, int, int]]:
    """Truth, prediction and count of the most frequent confusions, the most frequent first."""
    wrong = confusions.wrong()
    order = np.argsort(-wrong.counts, kind="stable")[:limit]
    return list(zip(*(part[order].tolist() for part in (wrong.truth, wrong.predicted, wrong.counts)), strict=True))


def taken_for(confusions: Confusions, names: Sequence[str]) -> list[tuple[str, str]]:
    """For each class its most frequent wrong prediction, and the count; blank and "-" if there is none."""
    rows = [("", "-")] * confusions.classes
    for truth, predicted, times in reversed(largest_confusions(confusions, limit=len(confusions.counts))):
        rows[truth] = (names[predicted], f"{times:,}")
    return rows


def confusion_section(confusions: Confusions, names: Sequence[str], *, counted: Counted = "images") -> Section:
    """The confusion matrix; with many classes, the most frequent confusions."""
    title = "Confusions"
    if len(names) <= MAX_MATRIX:
        cells = "" if counted == "images" else " Cells hold percent of the row."
        note = (
            f"Rows are the truth, columns the prediction.{cells} The shade is the share of the row, on a square-root"
            " scale, so that rare confusions show."
        )
        return Section(title, _heat_map(confusions.matrix(), names, counted), [note])
    pairs = largest_confusions(confusions)
    if not pairs:
        return Section(title, empty("None."), ["Pairs of classes that were confused."])
    totals = confusions.true()
    columns = [
        Column("Truth", "name", [names[i] for i, _, _ in pairs]),
        Column("Predicted", "name", [names[j] for _, j, _ in pairs]),
        Column(counted.capitalize(), "count", [times for _, _, times in pairs]),
        Column("Share", "share", [times / totals[i] for i, _, times in pairs]),
    ]
    note = f"The {count(len(pairs), 'most frequent pair')}, with the share of the true class's {counted}."
    return Section(title, table(columns, range(len(pairs))), [note])


def _divide(part: Integers, total: Integers) -> Fractions:
    fractions: Fractions = np.divide(part, total, out=np.full(len(total), np.nan), where=total > 0)
    return fractions


def _heat_map(matrix: Integers, names: Sequence[str], counted: Counted) -> Markup:
    digits = len(str(int(matrix.max(initial=0)))) if counted == "images" else len("100")
    longest = max((len(name) for name in names), default=0)
    rows = [
        [_cell(int(cell), int(row.sum()), name, other, counted) for cell, other in zip(row, names, strict=True)]
        for name, row in zip(names, matrix, strict=True)
    ]
    return render(
        "confusion.html",
        names=names,
        rows=zip(names, rows, strict=True),
        turned=longest > (6 if len(names) <= 5 else 3),  # characters that fit a cell on a phone
        longest=longest,
        narrowest=f"{max(1.75, 0.55 * digits + 0.5):g}",
    )


def _cell(cell: int, total: int, truth: str, predicted: str, counted: Counted) -> Cell:
    title = f"truth {clip(truth)}, predicted {clip(predicted)}: {cell} of {total}"
    if not cell:
        return Cell("0", title, "", "none")
    fraction = cell / total
    # What is not all never reads 100
    text = str(cell) if counted == "images" else str(min(round(100 * fraction), 100 if cell == total else 99))
    shade = float(np.sqrt(fraction))
    kind: Literal["", "mid", "full"] = "full" if shade > 0.82 else "mid" if shade > 0.6 else ""
    return Cell(text, f"{title} ({percent(fraction)})", f"{shade:.2f}", kind)
