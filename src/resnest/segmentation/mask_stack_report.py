"""The report of a multi-label segmenter: IoU and Dice of every class, and the pictures with the lowest IoU beside their
true and predicted masks. There is no confusion matrix, as classes do not exclude each other.

report = mask_stack_report(evaluation, splits.val, history)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.report.charts import History, number
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
from resnest.runtime.palette import class_colours
from resnest.segmentation.evaluation import MaskEvaluation
from resnest.segmentation.mask_stack import MaskStack
from resnest.segmentation.mask_stacks import MaskStackSamples, count_masks
from resnest.segmentation.metrics import dice_coefficient, mean_of_known, overlap_of_masks, precision_and_recall

MOST_CLASSES = 160
MOST_NAMED = 5  # classes below a picture


def mask_stack_report(evaluation: MaskEvaluation, samples: MaskStackSamples, history: History) -> Report:
    known: Mapping[str, Any] = evaluation.figures or history.best or {}
    figures = {key: number(known, key) for key in ("miou", "dice", "dice_image")}
    sections = [curves_section(history, ("mIoU", ("miou", "mIoU, %"), ("dice", "Dice, %")))]
    if len(evaluation.pixels):
        sections.append(_classes_section(evaluation, samples))
    return Report(
        kind="Multi-label segmentation" if len(evaluation.class_names) > 1 else "Binary segmentation",
        headlines=[
            *headlines(figures["miou"], f"Mean IoU{history.when}", f"on {count(evaluation.count, 'picture')}"),
            *headlines(figures["dice"], "Dice", f"by picture {percent(figures['dice_image'])}"),
        ],
        sections=[*sections, _worst_section(evaluation, samples)],
        footnote="IoU of a class: the pixels that truth and prediction both give it, by those that either does, of all"
        " pictures together; Dice: twice the former, by the sum of those of each. mIoU and Dice are means over classes."
        " They cover neither the chance in training nor the choice of the best epoch.",
    )


def _classes_section(evaluation: MaskEvaluation, samples: MaskStackSamples) -> Section:
    true = evaluation.overlap[:, 2]
    precision, recall = precision_and_recall(evaluation.overlap)
    columns = [
        Column("Class", "name", evaluation.class_names),
        Column("Of all pixels", "percent", true / evaluation.known.clip(1)),
        Column("IoU", "share", evaluation.class_iou),
        Column("Dice", "percent", evaluation.class_dice),
        Column("Recall", "percent", recall),
        Column("Precision", "percent", precision),
    ]
    note = "Lowest IoU first. Recall and precision are those of the pixels of each class."
    colours = class_colours(samples.classes)
    return classes_section(columns, note, counts=true, counted="pixels", most=MOST_CLASSES, colours=colours)


def _worst_section(evaluation: MaskEvaluation, samples: MaskStackSamples) -> Section:
    worst = [position for position in evaluation.worst(evaluation.count).tolist() if position in evaluation.worst_maps]
    comparisons = readable(worst, partial(_comparison, evaluation, samples))
    note = (
        f"The {count(len(comparisons), 'picture')} with the lowest IoU, mean over their classes."
        " Left the picture, in the middle the truth, right the prediction."
    )
    right, predicted, true = evaluation.pixels.sum(0).tolist()
    return comparisons_section(comparisons, note, images=evaluation.count, errors=predicted + true - 2 * right)


def _comparison(evaluation: MaskEvaluation, samples: MaskStackSamples, position: int) -> Comparison:
    """IoU, Dice, and the class with the most wrong pixels."""
    index, prediction = int(evaluation.indices[position]), evaluation.worst_maps[position]
    image, mask = samples.pair(index)
    if mask.shape != prediction.masks.shape:
        raise BadImage(samples.keys[index], "has another size than when it was evaluated")
    overlap = overlap_of_masks(prediction.masks, mask)
    right, predicted, true = overlap.T
    worst = int(np.argmax(predicted + true - 2 * right))
    captions = [
        Caption(f"IoU {percent(float(evaluation.image_iou[position]))}", strong=True),
        Caption(f"Dice {percent(mean_of_known(dice_coefficient(overlap)))}"),
        Caption(
            f"{clip(samples.class_names[worst], 30)}: {int(true[worst] - right[worst]):,} pixels missed,"
            f" {int(predicted[worst] - right[worst]):,} in vain"
        ),
    ]
    truth = stack_of(samples, index, mask)
    return Comparison(name=samples.keys[index], image=image, truth=truth, prediction=prediction, captions=captions)


def stack_of(samples: MaskStackSamples, index: int, mask: NDArray[np.uint8]) -> MaskStack:
    """The truth as a result."""
    return MaskStack(samples.keys[index], samples.classes, mask == 1, np.ones(len(mask), np.float32))


def annotated(samples: MaskStackSamples, index: int) -> Picture:
    """A picture on the page about the data, and beside it the same with its masks. Raises BadImage."""
    image, mask = samples.pair(index)
    pixels, known = count_masks(mask)
    caption = caption_of_shares(samples.class_names, pixels, mask[0].size, ignored=1 - float(known.sum() / mask.size))
    painted: Image.Image = stack_of(samples, index, mask).paint(image, SIDES["beside"])
    return Picture(name=samples.keys[index], images=[image, painted], captions=[caption])


def caption_of_shares(names: Sequence[str], pixels: NDArray[np.int64], of: int, *, ignored: float) -> Caption:
    """The largest classes of a picture of `of` pixels, with their shares, and the share that does not count."""
    parts = [
        f"{clip(names[k], 30)} {percent(float(pixels[k] / of))}"
        for k in np.argsort(-pixels, kind="stable")[:MOST_NAMED]
        if pixels[k]
    ]
    parts += [f"not counted {percent(ignored)}"] if ignored else []
    return Caption(", ".join(parts) or "no class")
