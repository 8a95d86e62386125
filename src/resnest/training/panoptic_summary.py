"""What the report of a panoptic detector's run is made from.

write_panoptic_report(path, panoptic_report(evaluation, splits.val, told))
"""

from __future__ import annotations

from typing import Any

from resnest.inference.panoptic_outcome import PanopticEvaluation
from resnest.inference.worst import COUNT as KEPT
from resnest.metrics.panoptic import PanopticMetrics
from resnest.panoptic.data import PanopticSamples
from resnest.report import Comparison, PanopticClass, PanopticMiss, PanopticReport
from resnest.runtime.palette import class_colours


def panoptic_report(evaluation: PanopticEvaluation, val: PanopticSamples, told: dict[str, Any]) -> PanopticReport:
    """`told` is what every page holds."""
    worst = [place for place in evaluation.worst(KEPT).tolist() if place in evaluation.kept]
    return PanopticReport(
        figures=evaluation.figures,
        classes=_classes(evaluation, val),
        images=evaluation.count,
        misses=[_miss(evaluation, val, place) for place in worst],
        **told,
    )


def _classes(evaluation: PanopticEvaluation, val: PanopticSamples) -> list[PanopticClass]:
    colours = class_colours(val.classes)
    return [
        PanopticClass(
            name=name,
            thing=k < evaluation.things,
            colour=colours[k],
            segments=int(evaluation.segments[k]),
            pq=float(evaluation.class_pq[k]),
            sq=float(evaluation.class_sq[k]),
            rq=float(evaluation.class_rq[k]),
        )
        for k, name in enumerate(evaluation.class_names)
    ]


def _miss(evaluation: PanopticEvaluation, val: PanopticSamples, place: int) -> PanopticMiss:
    index, found = int(evaluation.indices[place]), evaluation.kept[place]
    truth = val.truth(index)
    counts = PanopticMetrics(len(evaluation.class_names), evaluation.things)
    counts.update(found, truth)
    return PanopticMiss(
        regions=Comparison(image=val.decode(index), name=val.keys[index], truth=truth, found=found),
        pq=float(evaluation.image_pq[place]),
        missed=int(counts.missed.sum()),
        false=int(counts.false.sum()),
    )
