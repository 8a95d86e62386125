"""The report of a panoptic network: PQ, SQ and RQ of things and stuff and of every class, and the pictures with the
lowest PQ beside their true and predicted segments.

report = panoptic_report(evaluation, splits.val, history)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from resnest.panoptic.data import PanopticSamples
from resnest.panoptic.evaluation import GROUPS, QUALITIES, PanopticEvaluation
from resnest.panoptic.metrics import PanopticMetrics
from resnest.report.charts import History, number
from resnest.report.data_page import DataView
from resnest.report.page import Report, Section, count, percent
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
    table,
)
from resnest.runtime.palette import Colour, class_colours

MOST_CLASSES = 160  # all of COCO's


def panoptic_report(evaluation: PanopticEvaluation, samples: PanopticSamples, history: History) -> Report:
    known: Mapping[str, Any] = evaluation.figures or history.best or {}
    groups = ", ".join(f"{group} {percent(number(known, f'pq{suffix}'))}" for suffix, group in GROUPS.items() if suffix)
    return Report(
        kind="Panoptic segmentation",
        headlines=headlines(
            number(known, "pq"), f"Panoptic quality{history.when}", groups, f"on {count(evaluation.count, 'picture')}"
        ),
        sections=[
            curves_section(
                history,
                ("PQ", ("pq", "PQ, %"), ("rq", "RQ, %")),
                ("PQ by kind", ("pq_things", "things, %"), ("pq_stuff", "stuff, %")),
            ),
            *([_figures_section(evaluation)] if evaluation.figures else []),
            _classes_section(evaluation, samples),
            _worst_section(evaluation, samples),
        ],
        footnote="A predicted and a true segment of the same class match if their IoU is above 0.5."
        " PQ covers neither the chance in training nor the choice of the best epoch.",
    )


def _figures_section(evaluation: PanopticEvaluation) -> Section:
    columns = [
        Column("Figure", "name", [quality.title for quality in QUALITIES]),
        *(
            Column(group.capitalize(), "percent", [evaluation.figures[quality.key + suffix] for quality in QUALITIES])
            for suffix, group in GROUPS.items()
        ),
        Column("What it is", "meaning", [quality.meaning for quality in QUALITIES]),
    ]
    note = "Of all classes, of things (what can be counted) and of stuff (what cannot)."
    return Section("Figures", table(columns, range(len(QUALITIES))), [note])


def _classes_section(evaluation: PanopticEvaluation, samples: PanopticSamples) -> Section:
    names = evaluation.class_names
    columns = [
        Column("Class", "name", names),
        Column("Kind", "extra", [("", "thing" if k < evaluation.things else "stuff") for k in range(len(names))]),
        Column("Segments", "count", evaluation.segments),
        Column("PQ", "share", evaluation.class_pq),
        Column("SQ", "percent", evaluation.class_sq),
        Column("RQ", "percent", evaluation.class_rq),
    ]
    return classes_section(
        columns,
        "Lowest PQ first.",
        counts=evaluation.segments,
        counted="segments",
        most=MOST_CLASSES,
        colours=class_colours(samples.classes),
    )


def _worst_section(evaluation: PanopticEvaluation, samples: PanopticSamples) -> Section:
    mistaken = evaluation.worst(evaluation.count).tolist()
    worst = [position for position in mistaken if position in evaluation.worst_maps]
    comparisons = readable(worst, partial(_comparison, evaluation, samples))
    note = (
        f"The {count(len(comparisons), 'picture')} with the lowest PQ, mean over their classes. Left the picture, in"
        " the middle the truth, right the prediction: each object has a shade of its own. Grey belongs to no segment."
    )
    return comparisons_section(comparisons, note, images=evaluation.count, errors=len(mistaken))


def _comparison(evaluation: PanopticEvaluation, samples: PanopticSamples, position: int) -> Comparison:
    index, predicted = int(evaluation.indices[position]), evaluation.worst_maps[position]
    truth = samples.truth(index)
    counts = PanopticMetrics(len(evaluation.class_names), evaluation.things)
    counts.update(predicted, truth)
    false = count(int(counts.false.sum()), "false segment")
    captions = [
        Caption(f"PQ {percent(float(evaluation.image_pq[position]))}", strong=True),
        Caption(f"{int(counts.missed.sum()):,} missed, {false}"),
    ]
    name = samples.keys[index]
    return Comparison(name=name, image=samples.decode(index), truth=truth, prediction=predicted, captions=captions)


class PanopticView(DataView):
    """Pictures with segments on the page about the data: left the picture, right with its segments."""

    layout = "beside"

    def picture(self, samples: PanopticSamples, index: int) -> Picture:
        truth = samples.truth(index)
        image = samples.decode(index)
        things = sum(segment.label < samples.classes.things for segment in truth.segments)
        text = f"{count(things, 'thing')}, {count(len(truth.segments) - things, 'region of stuff', 'regions of stuff')}"
        painted = truth.paint(image, SIDES["beside"])
        return Picture(name=samples.keys[index], images=[image, painted], captions=[Caption(text, strong=True)])

    def columns(self, train: PanopticSamples, val: PanopticSamples) -> list[Column]:
        kinds = [("", "thing" if k < train.classes.things else "stuff") for k in range(len(train.class_names))]
        parts = ((f"{title} segments", part) for title, part in (("Training", train), ("Validation", val)))
        return [
            Column("Class", "name", train.class_names),
            Column("Kind", "extra", kinds),
            *(Column(title, "count", part.known_counts()) for title, part in parts),
        ]

    def colours(self, samples: PanopticSamples) -> Sequence[Colour]:
        return class_colours(samples.classes)
