"""The report of a segmenter: mIoU and pixel accuracy, every class with its fraction of the pixels, the confusion, and
the pictures with the lowest IoU beside their true and predicted labels.

report = segmentation_report(evaluation, splits.val, history)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from resnest.report.charts import History, number
from resnest.report.confusions import Confusions, confusion_section, recall_and_precision
from resnest.report.data_page import DataView
from resnest.report.page import Report, Section, clip, count, percent
from resnest.report.parts import (
    SIDES,
    Caption,
    Column,
    Comparison,
    Picture,
    classes_section,
    comparisons_section,
    curves_section,
    headlines,
    readable,
)
from resnest.runtime.decode import BadImage
from resnest.runtime.palette import Colour, class_colours
from resnest.segmentation.data import PixelSamples
from resnest.segmentation.evaluation import PixelEvaluation
from resnest.segmentation.mask_stack_report import annotated, caption_of_shares
from resnest.segmentation.mask_stacks import MaskStackSamples
from resnest.segmentation.paired import PairedSamples
from resnest.segmentation.result import LabelMap

MOST_CLASSES = 160  # all of ADE20K


def segmentation_report(evaluation: PixelEvaluation, samples: PixelSamples, history: History) -> Report:
    known: Mapping[str, Any] = evaluation.figures or history.best or {}
    figures = {key: number(known, key) for key in ("miou", "pixel_accuracy", "mean_accuracy")}
    sections = [curves_section(history, ("mIoU", ("miou", "mIoU, %"), ("pixel_accuracy", "pixels, %")))]
    confusions = Confusions.of_matrix(evaluation.confusion)
    if len(confusions.counts):
        sections.append(_classes_section(evaluation, samples))
        sections.append(confusion_section(confusions, evaluation.class_names, counted="pixels"))
    return Report(
        kind="Semantic segmentation",
        headlines=[
            *headlines(figures["miou"], f"Mean IoU{history.when}", f"on {count(evaluation.count, 'picture')}"),
            *headlines(
                figures["pixel_accuracy"], "Pixel accuracy", f"mean of classes {percent(figures['mean_accuracy'])}"
            ),
        ],
        sections=[*sections, _worst_section(evaluation, samples)],
        footnote="IoU of a class: the pixels that truth and prediction both give it, by those that either does, of all"
        " pictures together; mIoU is the mean over classes. It covers neither the chance in training nor the choice of"
        " the best epoch.",
    )


def _classes_section(evaluation: PixelEvaluation, samples: PixelSamples) -> Section:
    pixels = evaluation.confusion.sum(1)
    recall, precision = recall_and_precision(Confusions.of_matrix(evaluation.confusion))
    columns = [
        Column("Class", "name", evaluation.class_names),
        Column("Of all pixels", "percent", pixels / pixels.sum()),
        Column("IoU", "share", evaluation.class_iou),
        Column("Recall", "percent", recall),
        Column("Precision", "percent", precision),
    ]
    note = "Lowest IoU first. Recall and precision are those of the pixels of each class."
    colours = class_colours(samples.classes)
    return classes_section(columns, note, counts=pixels, counted="pixels", most=MOST_CLASSES, colours=colours)


def _worst_section(evaluation: PixelEvaluation, samples: PixelSamples) -> Section:
    worst = [position for position in evaluation.worst(evaluation.count).tolist() if position in evaluation.worst_maps]
    comparisons = readable(worst, partial(_comparison, evaluation, samples))
    note = (
        f"The {count(len(comparisons), 'picture')} with the lowest IoU, mean over their classes."
        " Left the picture, in the middle the truth, right the prediction. Grey does not count."
    )
    return comparisons_section(
        comparisons,
        note,
        images=evaluation.count,
        errors=int(evaluation.confusion.sum() - evaluation.confusion.trace()),
    )


def _comparison(evaluation: PixelEvaluation, samples: PixelSamples, position: int) -> Comparison:
    """IoU, wrong pixels, and the most frequent confusion."""
    index, prediction, names = int(evaluation.indices[position]), evaluation.worst_maps[position], samples.class_names
    image, mask = samples.pair(index)
    if mask.shape != prediction.labels.shape:
        raise BadImage(samples.keys[index], "has another size than when it was evaluated")
    counts = mask < len(names)
    wrong = counts & (mask != prediction.labels)
    captions = [
        Caption(f"IoU {percent(float(evaluation.image_iou[position]))}", strong=True),
        Caption(f"{percent(float(wrong.sum() / max(counts.sum(), 1)))} of the pixels wrong"),
    ]
    if wrong.any():
        pairs = mask[wrong].astype(np.int64) * len(names) + prediction.labels[wrong]
        true, predicted = divmod(int(np.bincount(pairs).argmax()), len(names))
        captions.append(Caption(f"most often {clip(names[true], 30)} taken for {clip(names[predicted], 30)}"))
    truth = LabelMap(samples.keys[index], samples.classes, mask, np.ones(len(names), np.float32))
    return Comparison(name=samples.keys[index], image=image, truth=truth, prediction=prediction, captions=captions)


class SegmentationView(DataView):
    """Pictures with masks on the page about the data: left the picture, right with the classes of its pixels."""

    layout = "beside"

    def picture(self, samples: PixelSamples | MaskStackSamples, index: int) -> Picture:
        if isinstance(samples, MaskStackSamples):
            return annotated(samples, index)
        image, mask = samples.pair(index)
        truth = LabelMap(samples.keys[index], samples.classes, mask, np.ones(len(samples.class_names), np.float32))
        names, ignored = samples.class_names, float((mask >= len(samples.class_names)).mean())
        caption = caption_of_shares(names, truth.counts()[: len(names)], mask.size, ignored=ignored)
        painted = truth.paint(image, SIDES["beside"])
        return Picture(name=samples.keys[index], images=[image, painted], captions=[caption])

    def columns(self, train: PairedSamples, val: PairedSamples) -> list[Column]:
        return [Column("Class", "name", train.class_names), Column("Number", "count", train.classes.ids)]

    def colours(self, samples: PairedSamples) -> Sequence[Colour]:
        return class_colours(samples.classes)
