"""The report of a keypoint model: OKS AP, every point's similarity, and the worst crops with truth and prediction.

report = keypoint_report(evaluation, splits.val, history)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.keypoints.data import KeypointSamples
from resnest.keypoints.evaluation import FIGURES, KeypointEvaluation
from resnest.keypoints.points import PointLayout
from resnest.keypoints.result import DRAWN, draw_points
from resnest.report.charts import History, number
from resnest.report.data_page import DataView
from resnest.report.page import Report, Section, count, percent
from resnest.report.parts import (
    Caption,
    Column,
    Picture,
    classes_section,
    curves_section,
    headlines,
    mistakes_section,
    readable,
    table,
)
from resnest.runtime.palette import Colour, colour
from resnest.runtime.shown import shown

MOST_PICTURES = 12
SIDE = 320  # pixels of the longer side of a crop that points are drawn on


def keypoint_report(evaluation: KeypointEvaluation, samples: KeypointSamples, history: History) -> Report:
    known: Mapping[str, Any] = evaluation.figures or history.best or {}
    ap50, ar = (percent(number(known, key)) for key in ("ap50", "ar"))
    worst = [place for place in evaluation.worst(evaluation.count).tolist() if place in evaluation.worst_poses]
    pictures = readable(worst[:MOST_PICTURES], partial(_mistake, evaluation, samples))
    return Report(
        kind="Keypoints",
        headlines=headlines(
            number(known, "ap"),
            f"OKS AP{history.when}",
            f"AP50 {ap50}, AR {ar}",
            f"on {count(evaluation.count, 'crop')} around {evaluation.boxes}",
        ),
        sections=[
            curves_section(history, ("OKS AP", ("ap", "AP, %"), ("ap50", "AP50, %"))),
            *([_figures_section(evaluation)] if evaluation.figures else []),
            _points_section(evaluation),
            mistakes_section(
                pictures,
                "The lowest OKS first: the crop, its annotated points, and those found.",
                images=evaluation.count,
                errors=len(worst),
                layout="compared",
            ),
        ],
        footnote="OKS of an object is the mean of its points' similarity exp(-d^2 / (2 s^2 k^2)): d is the distance to"
        " the annotated point, s^2 the object's area, k twice the point's sigma. AP is COCO's.",
    )


def _figures_section(evaluation: KeypointEvaluation) -> Section:
    columns = [
        Column("Figure", "name", [figure.title for figure in FIGURES]),
        Column("Value", "percent", [evaluation.figures[figure.key] for figure in FIGURES]),
        Column("What it is", "meaning", [figure.meaning for figure in FIGURES]),
    ]
    return Section("Figures", table(columns, range(len(FIGURES))), ["A dash: there is no such object."])


def _points_section(evaluation: KeypointEvaluation) -> Section:
    columns = [
        Column("Point", "name", evaluation.class_names),
        Column("Annotated", "count", evaluation.annotated),
        Column("Similarity", "share", evaluation.similarity),
    ]
    note = "Lowest first: its part in OKS, in the pose nearest to each annotated object; 0 where an object is missed."
    names = range(len(evaluation.class_names))
    return classes_section(
        columns, note, counts=evaluation.annotated, counted="points", colours=[colour(k) for k in names]
    )


def _mistake(evaluation: KeypointEvaluation, samples: KeypointSamples, position: int) -> Picture:
    index = int(evaluation.indices[position])
    poses, view, crop = evaluation.worst_poses[position], samples.view(index), samples.decode(index)
    plain = drawn(crop, samples.layout, view.points[None], np.zeros((1, len(view.visible)), bool))
    truth = drawn(crop, samples.layout, view.points[None], view.visible[None] > 0)
    found = drawn(crop, samples.layout, poses.points, poses.point_scores >= DRAWN)
    captions = [Caption(f"OKS {percent(float(evaluation.sample_oks[position]))}", strong=True)]
    return Picture(name=samples.keys[index], images=[plain, truth, found], captions=captions)


def drawn(crop: Image.Image, layout: PointLayout, points: NDArray[np.floating], seen: NDArray[np.bool_]) -> Image.Image:
    """A crop with points, (M, K, 2) in its pixels, in a size to look at."""
    scale = SIDE / max(crop.size)
    size = max(1, round(crop.width * scale)), max(1, round(crop.height * scale))
    picture = shown(crop).resize(size, Image.Resampling.BICUBIC)
    draw_points(picture, layout, points * (size[0] / crop.width, size[1] / crop.height), seen)
    return picture


class KeypointView(DataView):
    """Objects with their points on the page about the data."""

    layout = "large"

    def picture(self, samples: KeypointSamples, index: int) -> Picture:
        view = samples.view(index)
        image = drawn(samples.decode(index), samples.layout, view.points[None], view.visible[None] > 0)
        hidden, seen = int((view.visible == 1).sum()), int((view.visible > 0).sum())
        text = f"{count(seen, 'point')}{f', {hidden} hidden' if hidden else ''}"
        return Picture(name=samples.keys[index], images=[image], captions=[Caption(text, strong=True)])

    def columns(self, train: KeypointSamples, val: KeypointSamples) -> list[Column]:
        return [
            Column("Point", "name", train.class_names),
            Column("Training objects", "count", train.counts()),
            Column("Validation objects", "count", val.counts()),
        ]

    def colours(self, samples: KeypointSamples) -> Sequence[Colour]:
        return [colour(k) for k in range(len(samples.class_names))]
