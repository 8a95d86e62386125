"""What the report of a detector's run is made from.

write_detection_report(path, detection_report(evaluation, splits.val, told, task))
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.detection.data import DetectionSamples
from resnest.inference.detection_outcome import DetectionEvaluation
from resnest.report import DetectionClass, DetectionReport, Miss
from resnest.report.pictures import Mark
from resnest.tasks import Task

MOST_PICTURES = 12  # of the worst ones


def detection_report(
    evaluation: DetectionEvaluation, val: DetectionSamples, told: dict[str, Any], task: Task
) -> DetectionReport:
    """`told` is what every page holds."""
    assert task.recipe.detector is not None
    return DetectionReport(
        figures=evaluation.figures,
        classes=[_class(evaluation, k) for k in range(len(evaluation.class_names))],
        images=evaluation.count,
        misses=[_miss(evaluation, val, int(place)) for place in evaluation.worst(MOST_PICTURES)],
        monitor=task.monitor,
        max_detections=task.recipe.detector.max_detections,
        **told,
    )


def _class(evaluation: DetectionEvaluation, k: int) -> DetectionClass:
    """AP50 is the mean of the precision-recall curve, which is that at IoU 0.5."""
    masks: dict[str, float] = {}
    if "mask" in evaluation.class_ap:
        masks = {
            "mask_ap": float(evaluation.class_ap["mask"][k]),
            "mask_ap50": float(np.mean(evaluation.curves["mask"][k])),
        }
    return DetectionClass(
        name=evaluation.class_names[k],
        objects=int(evaluation.objects[k]),
        box_ap=float(evaluation.class_ap["box"][k]),
        box_ap50=float(np.mean(evaluation.curves["box"][k])),
        precision=evaluation.curves["box"][k].tolist(),
        **masks,
    )


def _miss(evaluation: DetectionEvaluation, val: DetectionSamples, place: int) -> Miss:
    index = int(evaluation.indices[place])
    objects, shown, mistakes = val.objects[index], evaluation.shown[place], evaluation.mistakes[place]
    names = evaluation.class_names
    missed = [
        Mark(box=_corners(objects.boxes[one]), kind="missed", text=names[objects.labels[one]])
        for one in mistakes.missed
    ]
    false = [
        Mark(box=_corners(shown.boxes[one]), kind="false", text=f"{names[shown.labels[one]]} {shown.scores[one]:.0%}")
        for one in mistakes.false
    ]
    return Miss(image=val.decode(index), name=val.keys[index], marks=[*missed, *false])


def _corners(box: NDArray[np.float32]) -> tuple[float, float, float, float]:
    left, top, right, bottom = map(float, box)
    return left, top, right, bottom
