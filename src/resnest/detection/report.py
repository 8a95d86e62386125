"""The report of a detector: box and mask AP, COCO's figures, the precision-recall curve of every class, and the
pictures with the most errors, with false negatives and false positives drawn.

report = detection_report(evaluation, splits.val, history)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from resnest.detection.data import DetectionSamples, Objects
from resnest.detection.evaluation import DetectionEvaluation
from resnest.detection.transforms import Geometry, transform_objects
from resnest.report.charts import MAX_LINES, History, number, precision_chart
from resnest.report.data_page import DataView
from resnest.report.page import Headline, Report, Section, count, percent, render
from resnest.report.parts import (
    Caption,
    Chart,
    Column,
    Frame,
    Key,
    Picture,
    classes_section,
    curves_section,
    headlines,
    mistakes_section,
    readable,
    table,
)
from resnest.runtime.draw import draw_objects
from resnest.runtime.palette import Colour, colour
from resnest.runtime.rle import encode

MOST_PICTURES = 12
DRAWN = 960  # pixels of a side at most, of a picture that objects are drawn on
KEYS = (Key("missed", "missed"), Key("not there, or another class", "false"))


def detection_report(evaluation: DetectionEvaluation, samples: DetectionSamples, history: History) -> Report:
    kinds = ["box", "mask"] if "mask" in evaluation.class_ap else ["box"]
    pictures = readable(evaluation.worst(MOST_PICTURES).tolist(), partial(_picture, evaluation, samples))
    note = (
        f"The {count(len(pictures), 'picture')} with the most errors. Point at a frame for its class and score."
        if pictures
        else ""
    )
    return Report(
        kind="Instance segmentation" if len(kinds) > 1 else "Object detection",
        headlines=_headlines(evaluation, history, kinds),
        sections=[
            curves_section(
                history,
                *((f"{kind.capitalize()} AP", (f"{kind}_ap", "AP, %"), (f"{kind}_ap50", "AP50, %")) for kind in kinds),
            ),
            *([_figures_section(evaluation)] if evaluation.figures else []),
            _classes_section(evaluation, kinds),
            *_precision_sections(evaluation),
            mistakes_section(
                pictures,
                note,
                images=evaluation.count,
                errors=sum(map(len, evaluation.mistakes)),
                layout="large",
                keys=KEYS,
            ),
        ],
        footnote=f"AP is {'LVIS' if evaluation.federated else 'COCO'}'s: the mean precision at 101 recalls, over ten"
        " overlaps and over all classes that have objects. It covers neither the chance in training nor the choice of"
        " the best epoch.",
    )


def _headlines(evaluation: DetectionEvaluation, history: History, kinds: list[str]) -> list[Headline]:
    known: Mapping[str, Any] = evaluation.figures or history.best or {}
    large = []
    for kind in kinds:
        first = kind == "box"
        title = f"{kind.capitalize()} AP{history.when if first else ''}"
        ap50, ap75 = (percent(number(known, f"{kind}_{key}")) for key in ("ap50", "ap75"))
        lines = [f"AP50 {ap50}, AP75 {ap75}", *([f"on {count(evaluation.count, 'image')}"] if first else [])]
        large += headlines(number(known, f"{kind}_ap"), title, *lines)
    return large


def _figures_section(evaluation: DetectionEvaluation) -> Section:
    rows = evaluation.rows()
    kinds = {"box": "Boxes", "mask": "Masks"}
    columns = [
        Column("Figure", "name", [figure.title.removeprefix("box ") for figure, _ in rows]),
        *(Column(kinds[kind], "percent", [values[i] for _, values in rows]) for i, kind in enumerate(evaluation.kinds)),
        Column("What it is", "meaning", [figure.meaning for figure, _ in rows]),
    ]
    whose = "LVIS's, and the fixed AP (arXiv 2102.01066)" if evaluation.federated else "COCO's"
    note = f"{whose}. A dash: there is no such object among the images."
    return Section("Figures", table(columns, range(len(rows))), [note])


def _classes_section(evaluation: DetectionEvaluation, kinds: list[str]) -> Section:
    """AP50 is the mean of the precision-recall curve, which is that at IoU 0.5."""
    columns = [Column("Class", "name", evaluation.class_names), Column("Objects", "count", evaluation.objects)]
    for kind in kinds:
        title = f"{kind.capitalize()} AP" if len(kinds) > 1 else "AP"
        columns.append(Column(title, "share" if kind == "box" else "percent", evaluation.class_ap[kind]))
        columns.append(Column("AP50", "percent", evaluation.curves[kind].mean(axis=1)))
    return classes_section(columns, "Lowest box AP first.", counts=evaluation.objects, counted="objects")


def _precision_sections(evaluation: DetectionEvaluation) -> list[Section]:
    """Precision-recall curves: one per class if they are few, and their mean."""
    drawn = np.flatnonzero(evaluation.objects)
    if not len(drawn):
        return []
    each = len(drawn) <= MAX_LINES
    keys = [Key("mean", "main")] if len(drawn) > 1 or not each else []
    if each:
        keys += [Key(evaluation.class_names[k], "line", f"var(--line-{i})") for i, k in enumerate(drawn)]
    note = (
        "Precision over recall of boxes at IoU 0.5. Where a line ends early, the remaining objects are never detected."
    )
    if not each:
        note += f" The mean of {len(drawn)} classes."
    chart = Chart("", keys, precision_chart(evaluation.curves["box"][drawn], each=each))
    return [Section("Precision and recall", render("charts.html", charts=[chart], large=True), [note])]


def _picture(evaluation: DetectionEvaluation, samples: DetectionSamples, position: int) -> Picture:
    index, names = int(evaluation.indices[position]), evaluation.class_names
    objects, shown, mistakes = samples.objects[index], evaluation.shown[position], evaluation.mistakes[position]
    missed = [Frame(box=objects.boxes[k], kind="missed", text=names[objects.labels[k]]) for k in mistakes.missed]
    false = [
        Frame(box=shown.boxes[k], kind="false", text=f"{names[shown.labels[k]]} {percent(float(shown.scores[k]), 0)}")
        for k in mistakes.false
    ]
    parts = ([f"{len(missed):,} missed"] if missed else []) + ([count(len(false), "false alarm")] if false else [])
    return Picture(
        name=samples.keys[index],
        images=[samples.decode(index)],
        captions=[Caption(", ".join(parts), strong=True)],
        frames=[*missed, *false],
    )


class DetectionView(DataView):
    """Pictures with objects on the page about the data, moved to the picture's size here as training moves them."""

    layout = "large"

    def picture(self, samples: DetectionSamples, index: int) -> Picture:
        image, objects = samples.decode(index), samples.annotations(index)
        small = image.copy()
        small.thumbnail((DRAWN, DRAWN))
        whole = Geometry(left=0, top=0, right=image.width, bottom=image.height, width=small.width, height=small.height)
        outlined = bool(samples.objects.segmentations.kinds.any())
        with_outline = np.array([bool(outline) for outline in objects.segmentations], bool)
        target = transform_objects(objects, whole, masks=outlined and bool(with_outline.all()))
        labels = target.labels.tolist()
        drawn = draw_objects(
            small,
            target.boxes.numpy(),
            texts=[samples.class_names[label] for label in labels] if len(samples.class_names) > 1 else [],
            colours=[colour(label) for label in labels],
            masks=[encode(mask.numpy()) for mask in target.masks.one_by_one()] if target.masks is not None else None,
        )
        return Picture(
            name=samples.keys[index], images=[drawn], captions=_contents(samples, objects, len(target.boxes))
        )

    def columns(self, train: DetectionSamples, val: DetectionSamples) -> list[Column]:
        columns = super().columns(train, val)
        parts = (("Training objects", train), ("Validation objects", val))
        return columns + [Column(title, "count", part.object_counts()) for title, part in parts]

    def colours(self, samples: DetectionSamples) -> Sequence[Colour]:
        return [colour(number) for number in range(len(samples.class_names))]


def _contents(samples: DetectionSamples, objects: Objects, learned: int) -> list[Caption]:
    """Objects by class, and how many are not trained on."""
    labels = objects.labels[objects.trainable_mask()]
    counts = np.bincount(labels, minlength=len(samples.class_names))
    parts = [f"{counts[k]} {samples.class_names[k]}" for k in np.argsort(-counts, kind="stable") if counts[k]]
    captions = [Caption(", ".join(parts) or "no object", strong=True)]
    crowds, rest = int(objects.crowd.sum()), len(objects.labels) - learned - int(objects.crowd.sum())
    if crowds:
        captions.append(
            Caption(f"{count(crowds, 'crowd or difficult object', 'crowds or difficult objects')} not drawn")
        )
    if rest:
        captions.append(Caption(f"{rest} not drawn: no area in the picture"))
    return captions
