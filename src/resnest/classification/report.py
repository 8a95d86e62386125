"""The report of a classifier: top-1 with its interval, the confusion matrix, the most confident mistakes.

report = classification_report(evaluation, splits.val, history)
"""

from __future__ import annotations

import math

from resnest.classification.evaluation import ClassEvaluation
from resnest.data.samples import Samples
from resnest.figures import wilson_interval
from resnest.report.confusion import confusion_section, recall_and_precision, taken_for
from resnest.report.history import History, number
from resnest.report.page import NO_BREAK, Headline, Report, count, percent
from resnest.report.parts import Caption, Column, Picture, classes_section, curves_section, headlines, mistakes_section

MOST_PICTURES = 24
MOST_CLASSES = 30


def classification_report(evaluation: ClassEvaluation, samples: Samples, history: History) -> Report:
    sections = [curves_section(history, ("Accuracy", ("top1", "top-1, %"), ("top5", "top-5, %")))]
    if evaluation.count:
        matrix, names = evaluation.confusion, evaluation.class_names
        recall, precision = recall_and_precision(matrix)
        columns = [
            Column("Class", "name", names),
            Column("Images", "count", matrix.sum(1)),
            Column("Recall", "share", recall),
            Column("Precision", "percent", precision),
            Column("Most often taken for", "extra", taken_for(matrix, names)),
        ]
        notes = (
            "Lowest recall first. Recall: of the images of a class, the fraction classified correctly.",
            "Precision: of the predictions of a class, how many were right.",
        )
        sections.append(confusion_section(matrix, names))
        sections.append(classes_section(columns, *notes, counts=matrix.sum(1), most=MOST_CLASSES))
    pictures = [_mistake(evaluation, samples, place) for place in evaluation.worst(MOST_PICTURES).tolist()]
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


def _headlines(evaluation: ClassEvaluation, history: History) -> list[Headline]:
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


def _mistake(evaluation: ClassEvaluation, samples: Samples, place: int) -> Picture:
    index, names = int(evaluation.indices[place]), evaluation.class_names
    predicted, truth = names[evaluation.predicted[place]], names[evaluation.labels[place]]
    captions = [
        Caption(predicted, float(evaluation.scores[place]), strong=True),
        Caption(f"is {truth}", float(evaluation.truth_scores[place])),
    ]
    return Picture(name=samples.keys[index], images=[samples.decode(index)], captions=captions)
