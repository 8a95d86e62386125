"""What a confusion matrix says, as HTML: the matrix itself or its largest entries, and figures per class.

    section("Confusions", *confusion_view(matrix, names))        # note and body
    section("Confusions", *confusion_view(matrix, names, counted="pixels"))
    recall, precision = recall_and_precision(matrix)

Rows are the truth, columns the prediction. Cells hold numbers of images; of pixels, which are many, the percentage of
the row. A class without images has no recall, and one that was never predicted has no precision: both are NaN, printed
as "-".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from resnest.report.page import class_notes, clip, count, percent

MAX_MATRIX = 25  # classes; beyond that the cells no longer hold their counts
MAX_PAIRS = 20
MAX_CLASSES = 30

Counted = Literal["images", "pixels"]
Matrix = NDArray[np.int64]
Shares = NDArray[np.float64]


def recall_and_precision(matrix: Matrix) -> tuple[Shares, Shares]:
    """Two arrays (K,) of fractions, NaN where there is nothing to count."""
    right = matrix.diagonal()
    return _divide(right, matrix.sum(axis=1)), _divide(right, matrix.sum(axis=0))


def largest_confusions(matrix: Matrix, limit: int = MAX_PAIRS) -> list[tuple[int, int]]:
    """The pairs (truth, prediction) that were confused most often, the most frequent first."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    pairs = [divmod(int(index), wrong.shape[1]) for index in order]
    return [(truth, predicted) for truth, predicted in pairs if wrong[truth, predicted]]


def worst_classes(matrix: Matrix, limit: int = MAX_CLASSES) -> list[int]:
    """Classes by recall, the lowest first; of equal ones the larger class, and those without images last."""
    recall, _ = recall_and_precision(matrix)
    order = np.lexsort((-matrix.sum(axis=1), np.nan_to_num(recall, nan=2.0)))
    return [int(index) for index in order[:limit]]


def confusion_view(matrix: Matrix, names: Sequence[str], *, counted: Counted = "images") -> tuple[str, str]:
    """Note and body of the section on confusions."""
    if len(names) <= MAX_MATRIX:
        cells = "" if counted == "images" else " Cells hold percent of the row."
        note = (
            f"Rows are the truth, columns the prediction.{cells} The shade is the share of the row, on a square-root"
            " scale, so that rare confusions show."
        )
        return note, _heat_map(matrix, names, counted)
    pairs = largest_confusions(matrix)
    note = f"The {count(len(pairs), 'most frequent pair')}, with the share of the true class's {counted}."
    if not pairs:
        return "Pairs of classes that were confused.", '<p class="empty">None.</p>'
    return note, _pair_table(matrix, names, pairs, counted)


def class_view(matrix: Matrix, names: Sequence[str]) -> tuple[str, str]:
    """Note and body of the section on single classes."""
    rows = worst_classes(matrix)
    note = class_notes(
        "Lowest recall first. Recall: of the images of a class, how many were found.",
        "Precision: of the predictions of a class, how many were right.",
        classes=len(names),
        shown=len(rows),
        without=int((matrix.sum(axis=1) == 0).sum()),
    )
    return note, _class_table(matrix, names, rows)


def _divide(part: Matrix, whole: Matrix) -> Shares:
    shares: Shares = np.full(len(whole), np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares


def _heat_map(matrix: Matrix, names: Sequence[str], counted: Counted) -> str:
    totals = matrix.sum(axis=1)
    digits = len(str(int(matrix.max(initial=0)))) if counted == "images" else len("100")
    longest = max((len(name) for name in names), default=0)
    turned = longest > (6 if len(names) <= 5 else 3)  # characters that fit a cell on a phone
    heads = "".join(
        f'<th scope="col" title="{clip(name)}"><span class="cut">{clip(name, 40)}</span></th>' for name in names
    )
    rows = "".join(
        f'<tr><th scope="row" class="cut" title="{clip(name)}">{clip(name, 40)}</th>'
        + "".join(_cell(int(cell), int(total), name, other, counted) for cell, other in zip(row, names, strict=True))
        + "</tr>\n"
        for name, row, total in zip(names, matrix, totals, strict=True)
    )
    size = f"--classes: {max(len(names), 1)}; --min: {max(1.75, 0.55 * digits + 0.5):g}rem; --name: {longest}"
    return f"""<div class="scroll" role="region" aria-label="Confusion matrix" tabindex="0">
<table class="heat" style="{size}">
<thead>{_axes(len(names), turned)}{heads}</tr></thead>
<tbody>{rows}</tbody>
</table></div>"""


def _axes(classes: int, turned: bool) -> str:
    """The names of the two axes, and the opening of the row of column names: "predicted" above it or beside it."""
    if turned:
        return '<tr class="turned"><th class="axis">predicted &rarr;<br>truth &darr;</th>'
    return f'<tr><td></td><th class="axis" colspan="{classes}">predicted</th></tr>\n<tr><th class="axis">truth</th>'


def _cell(cell: int, total: int, truth: str, predicted: str, counted: Counted) -> str:
    title = f"truth {clip(truth)}, predicted {clip(predicted)}: {cell} of {total}"
    if not cell:
        return f'<td class="none" title="{title}">0</td>'
    text = str(cell) if counted == "images" else _in_percent(cell, total)
    shade = float(np.sqrt(cell / total))
    kind = ' class="full"' if shade > 0.82 else ' class="mid"' if shade > 0.6 else ""
    return f'<td{kind} style="--s: {shade:.2f}" title="{title} ({percent(cell / total)})">{text}</td>'


def _in_percent(cell: int, total: int) -> str:
    """Without digits; what is not all never reads 100."""
    return str(min(round(100 * cell / total), 100 if cell == total else 99))


def _pair_table(matrix: Matrix, names: Sequence[str], pairs: Sequence[tuple[int, int]], counted: Counted) -> str:
    totals = matrix.sum(axis=1)
    rows = "".join(
        f'<tr><th scope="row" class="cut" title="{clip(names[i])}">{clip(names[i])}</th>'
        f'<td class="cut" title="{clip(names[j])}">{clip(names[j])}</td>'
        f'<td class="num">{int(matrix[i, j]):,}</td>{share_cells(matrix[i, j] / totals[i])}</tr>\n'
        for i, j in pairs
    )
    return f"""<table class="list">
<thead><tr><th>Truth</th><th>Predicted</th><th class="num">{counted.capitalize()}</th><th class="num">Share</th>\
<th class="wide"></th></tr></thead>
<tbody>{rows}</tbody></table>"""


def _class_table(matrix: Matrix, names: Sequence[str], rows: Sequence[int]) -> str:
    recall, precision = recall_and_precision(matrix)
    totals = matrix.sum(axis=1)
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    body = "".join(
        f'<tr><th scope="row" class="cut" title="{clip(names[i])}">{clip(names[i])}</th>'
        f'<td class="num">{int(totals[i]):,}</td>{share_cells(recall[i])}<td class="num">{percent(precision[i])}</td>'
        f'<td class="extra cut">{_taken_for(wrong[i], names)}</td></tr>\n'
        for i in rows
    )
    return f"""<table class="list">
<thead><tr><th>Class</th><th class="num">Images</th><th class="num">Recall</th><th class="wide"></th>\
<th class="num">Precision</th><th class="extra">Most often taken for</th></tr></thead>
<tbody>{body}</tbody></table>"""


def share_cells(share: float) -> str:
    """Two cells: the figure, and a bar that a narrow screen leaves out."""
    bar = f'<span class="bar"><i style="width: {100 * share:.1f}%"></i></span>' if share == share else ""
    return f'<td class="num">{percent(float(share))}</td><td class="wide">{bar}</td>'


def _taken_for(wrong: Matrix, names: Sequence[str]) -> str:
    if not wrong.any():
        return '<span class="faint">-</span>'
    other = int(wrong.argmax())
    return f'{clip(names[other])} <span class="faint">{int(wrong[other]):,}</span>'
