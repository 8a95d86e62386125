"""The report of a multi-label classifier: mean average precision, figures of every class, the highest losses.

report = multi_label_report(evaluation, splits.val, history)
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from resnest.classification.evaluation import MultiLabelEvaluation
from resnest.data.samples import Samples
from resnest.report.history import History, number
from resnest.report.page import Report, count, percent
from resnest.report.parts import Caption, Column, Picture, classes_section, curves_section, headlines, mistakes_section

MOST_PICTURES = 24
MOST_LABELS = 3  # of a kind below a picture


def multi_label_report(evaluation: MultiLabelEvaluation, samples: Samples, history: History) -> Report:
    figures, best = evaluation.figures, history.best
    micro, macro = (percent(figures.get(key, math.nan)) for key in ("f1_micro", "f1_macro"))
    recall, precision = evaluation.recall_and_precision()
    counts = evaluation.labels.sum(0)
    columns = [
        Column("Class", "name", evaluation.class_names),
        Column("Images", "count", counts),
        Column("Average precision", "share", evaluation.areas),
        Column("Recall", "percent", recall),
        Column("Precision", "percent", precision),
    ]
    pictures = [_mistake(evaluation, samples, place) for place in evaluation.worst(MOST_PICTURES).tolist()]
    errors = int((evaluation.given != evaluation.labels).any(1).sum())
    note = (
        f"{count(errors, 'image')} of {evaluation.count:,} with a wrong or a missing label. Here are the"
        f" {len(pictures)} with the highest loss. Below each picture: labels that are wrong, labels that are missing,"
        " the score that the network gave to each, and what was right."
    )
    return Report(
        kind="Multi-label classification",
        headlines=headlines(
            number(best or figures, "map"),
            f"Mean average precision{history.when}",
            f"F1 {micro} of all labels, {macro} mean of classes",
        ),
        sections=[
            curves_section(history, ("mAP and F1", ("map", "mAP, %"), ("f1_micro", "F1, %"))),
            classes_section(
                columns,
                "Lowest average precision first. Recall and precision are those of the labels given.",
                counts=counts,
            ),
            mistakes_section(pictures, note, images=evaluation.count, errors=errors),
        ],
        footnote="Average precision is the area under a class's precision-recall steps, without interpolation. A label"
        " is given from a score of 50 % on.",
    )


def _mistake(evaluation: MultiLabelEvaluation, samples: Samples, place: int) -> Picture:
    index, scores = int(evaluation.indices[place]), evaluation.scores[place]
    given, true = evaluation.given[place], evaluation.labels[place]
    order = np.argsort(-scores, kind="stable")  # the likeliest first

    def scored(marks: NDArray[np.bool_]) -> list[tuple[str, float]]:
        return [(evaluation.class_names[k], float(scores[k])) for k in order if marks[k]]

    wrong, missed, right = scored(given & ~true), scored(true & ~given)[::-1], scored(given & true)
    captions = [Caption(name, score, strong=True) for name, score in wrong[:MOST_LABELS]]
    captions += _more(wrong, "wrong")
    captions += [Caption(f"misses {name}", score) for name, score in missed[:MOST_LABELS]]
    captions += _more(missed, "missing")
    if right:
        captions.append(Caption("right: " + ", ".join(name for name, _ in right)))
    return Picture(name=samples.keys[index], images=[samples.decode(index)], captions=captions)


def _more(labels: list[tuple[str, float]], kind: str) -> list[Caption]:
    more = len(labels) - MOST_LABELS
    return [Caption(f"and {more} more {kind}")] if more > 0 else []
