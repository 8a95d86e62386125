"""The report of a classifier: its figures with their uncertainty, confusions, the worst mistakes.

report = classification_report(evaluation, splits.val, history)          # one label an image
report = multi_label_report(evaluation, splits.val, history)             # several
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from resnest.classification.evaluation import MultiLabelEvaluation, SingleLabelEvaluation
from resnest.data.samples import LabelledSamples, Samples
from resnest.figures import wilson_interval
from resnest.report.charts import History, number
from resnest.report.confusions import Confusions, confusion_section, recall_and_precision, taken_for
from resnest.report.data_page import DataView
from resnest.report.page import NO_BREAK, Headline, Report, count, percent
from resnest.report.parts import (
    Caption,
    Column,
    Picture,
    classes_section,
    curves_section,
    headlines,
    mistakes_section,
    readable,
)

MOST_PICTURES = 24
MOST_CLASSES = 30


def classification_report(evaluation: SingleLabelEvaluation, samples: Samples, history: History) -> Report:
    sections = [curves_section(history, ("Accuracy", ("top1", "top-1, %"), ("top5", "top-5, %")))]
    if evaluation.count:
        names = evaluation.class_names
        confusions = Confusions.of_pairs(evaluation.labels, evaluation.predicted, len(names))
        recall, precision = recall_and_precision(confusions)
        columns = [
            Column("Class", "name", names),
            Column("Images", "count", confusions.true()),
            Column("Recall", "share", recall),
            Column("Precision", "percent", precision),
            Column("Most often taken for", "extra", taken_for(confusions, names)),
        ]
        notes = (
            "Lowest recall first. Recall: of the images of a class, the fraction classified correctly.",
            "Precision: of the predictions of a class, how many were right.",
        )
        sections.append(confusion_section(confusions, names))
        sections.append(classes_section(columns, *notes, counts=confusions.true(), most=MOST_CLASSES))
    pictures = readable(evaluation.worst(MOST_PICTURES).tolist(), partial(_mistake, evaluation, samples))
    errors = int((evaluation.predicted != evaluation.labels).sum())
    note = (
        f"{count(errors, 'mistake')} on {count(evaluation.count, 'image')}. Here are the {len(pictures)} most"
        " confident. Below each picture: what it was taken for, what it is, and the probability that the network gave"
        " to each."
    )
    return Report(
        kind="Image classification",
        headlines=_headlines(evaluation, history),
        sections=[*sections, mistakes_section(pictures, note, images=evaluation.count, errors=errors)],
        footnote="The interval is Wilson's for a share, at 95 %. It covers the chance in which images were evaluated,"
        " not the chance in training, nor the choice of the best epoch.",
    )


def _headlines(evaluation: SingleLabelEvaluation, history: History) -> list[Headline]:
    """The best top-1: as logged, or the evaluation's own if none was logged."""
    images, best = evaluation.count, history.best
    digits = 1 if images < 1000 else 2  # one image of 1000 is 0.1 %
    own = evaluation.figures.get("top1", math.nan)
    top1 = number(best, "top1") if best else own
    title, lines = f"Top-1 accuracy{history.when}", []
    if best and math.isfinite(number(best, "top5")):
        title += f"; top-5 {percent(number(best, 'top5'))}"
    if images:
        low, high = wilson_interval(top1 * images, images)
        interval = f"{percent(low, digits).removesuffix(f'{NO_BREAK}%')} to {percent(high, digits)}"
        lines.append(f"95 % interval {interval} on {count(images, 'image')}")
    if abs(top1 - own) > 5e-4:  # more than rounding: say so rather than let the reader wonder
        lines.append(f"The matrix below is another evaluation: {percent(own, digits)}")
    return headlines(top1, title, *lines, digits=digits)


def _mistake(evaluation: SingleLabelEvaluation, samples: Samples, position: int) -> Picture:
    index, names = int(evaluation.indices[position]), evaluation.class_names
    predicted, truth = names[evaluation.predicted[position]], names[evaluation.labels[position]]
    captions = [
        Caption(predicted, float(evaluation.scores[position]), strong=True),
        Caption(f"is {truth}", float(evaluation.truth_scores[position])),
    ]
    return Picture(name=samples.keys[index], images=[samples.decode(index)], captions=captions)


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
    pictures = readable(evaluation.worst(MOST_PICTURES).tolist(), partial(_multi_label_mistake, evaluation, samples))
    errors = int((evaluation.predicted_labels != evaluation.labels).any(1).sum())
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


def _multi_label_mistake(evaluation: MultiLabelEvaluation, samples: Samples, position: int) -> Picture:
    index, scores = int(evaluation.indices[position]), evaluation.scores[position]
    predicted, true = evaluation.predicted_labels[position], evaluation.labels[position]
    order = np.argsort(-scores, kind="stable")  # the likeliest first

    def scored(marks: NDArray[np.bool_]) -> list[tuple[str, float]]:
        return [(evaluation.class_names[k], float(scores[k])) for k in order if marks[k]]

    wrong, missed, right = scored(predicted & ~true), scored(true & ~predicted)[::-1], scored(predicted & true)
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


class ClassificationView(DataView):
    """Labelled images on the page about the data."""

    def picture(self, samples: LabelledSamples, index: int) -> Picture:
        names = samples.names_of(index)
        captions = [Caption(name, strong=True) for name in names[:MOST_LABELS]] or [Caption("no label")]
        captions += [Caption(f"and {len(names) - MOST_LABELS} more")] if len(names) > MOST_LABELS else []
        return Picture(name=samples.keys[index], images=[samples.decode(index)], captions=captions)
