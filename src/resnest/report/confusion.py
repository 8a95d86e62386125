"""Report of a confusion matrix: the matrix or its largest entries, recall and precision of each class.

    section = confusion_section(matrix, names)
    section = confusion_section(matrix, names, counted="pixels")
    recall, precision = recall_and_precision(matrix)

Rows are the truth, columns the prediction. Cells hold numbers of images; for pixels, percentages of the row. A class
without images has no recall, and a class that was never predicted no precision: both are NaN, printed as "-".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from resnest.report.page import Section, clip, count, percent, render
from resnest.report.parts import Column, empty, table

MAX_MATRIX = 25  # classes; beyond that the cells no longer hold their counts
MAX_PAIRS = 20

Counted = Literal["images", "pixels"]
Matrix = NDArray[np.int64]
Shares = NDArray[np.float64]


class Cell(NamedTuple):
    """One entry of the drawn matrix."""

    text: str
    title: str
    shade: str  # opacity
    kind: Literal["none", "", "mid", "full"]  # decides the colour of the text


def recall_and_precision(matrix: Matrix) -> tuple[Shares, Shares]:
    """Two arrays (K,) of fractions, NaN where undefined."""
    right = matrix.diagonal()
    return _divide(right, matrix.sum(axis=1)), _divide(right, matrix.sum(axis=0))


def largest_confusions(matrix: Matrix, limit: int = MAX_PAIRS) -> list[tuple[int, int]]:
    """The pairs (truth, prediction) of the most frequent confusions, the most frequent first."""
    wrong = _wrong(matrix)
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    pairs = [divmod(int(index), wrong.shape[1]) for index in order]
    return [(truth, predicted) for truth, predicted in pairs if wrong[truth, predicted]]


def taken_for(matrix: Matrix, names: Sequence[str]) -> list[tuple[str, str]]:
    """For each class its most frequent wrong prediction, and the count; blank and "-" if there is none."""
    wrong = _wrong(matrix)
    return [(names[row.argmax()], f"{row.max():,}") if row.any() else ("", "-") for row in wrong]


def confusion_section(matrix: Matrix, names: Sequence[str], *, counted: Counted = "images") -> Section:
    """The confusion matrix; with many classes, the most frequent confusions."""
    title = "Confusions"
    if len(names) <= MAX_MATRIX:
        cells = "" if counted == "images" else " Cells hold percent of the row."
        note = (
            f"Rows are the truth, columns the prediction.{cells} The shade is the share of the row, on a square-root"
            " scale, so that rare confusions show."
        )
        return Section(title, _heat_map(matrix, names, counted), [note])
    pairs = largest_confusions(matrix)
    if not pairs:
        return Section(title, empty("None."), ["Pairs of classes that were confused."])
    totals = matrix.sum(axis=1)
    columns = [
        Column("Truth", "name", [names[i] for i, _ in pairs]),
        Column("Predicted", "name", [names[j] for _, j in pairs]),
        Column(counted.capitalize(), "count", [int(matrix[pair]) for pair in pairs]),
        Column("Share", "share", [matrix[i, j] / totals[i] for i, j in pairs]),
    ]
    note = f"The {count(len(pairs), 'most frequent pair')}, with the share of the true class's {counted}."
    return Section(title, table(columns, range(len(pairs))), [note])


def _wrong(matrix: Matrix) -> Matrix:
    """The matrix without its diagonal."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    return wrong


def _divide(part: Matrix, whole: Matrix) -> Shares:
    shares: Shares = np.full(len(whole), np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares


def _heat_map(matrix: Matrix, names: Sequence[str], counted: Counted) -> Markup:
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
    share = cell / total
    # What is not all never reads 100
    text = str(cell) if counted == "images" else str(min(round(100 * share), 100 if cell == total else 99))
    shade = float(np.sqrt(share))
    kind: Literal["", "mid", "full"] = "full" if shade > 0.82 else "mid" if shade > 0.6 else ""
    return Cell(text, f"{title} ({percent(share)})", f"{shade:.2f}", kind)
