"""What the report of a segmenter's run is made from.

write_segmentation_report(path, segmentation_report(evaluation, splits.val, told))
"""

from __future__ import annotations

from typing import Any

import numpy as np

from resnest.inference.pixel_outcome import PixelEvaluation
from resnest.inference.worst import COUNT as KEPT
from resnest.report import Comparison, SegmentationReport
from resnest.runtime.label_map import LabelMap
from resnest.segmentation.data import PixelSamples


def segmentation_report(evaluation: PixelEvaluation, val: PixelSamples, told: dict[str, Any]) -> SegmentationReport:
    """`told` is what every page holds."""
    worst = [place for place in evaluation.worst(KEPT).tolist() if place in evaluation.kept]
    return SegmentationReport(
        figures=evaluation.figures,
        classes=val.classes,
        confusion=evaluation.confusion,
        class_iou=evaluation.class_iou.tolist(),
        images=evaluation.count,
        worst=[_comparison(evaluation, val, place) for place in worst],
        worst_iou=evaluation.image_iou[worst].tolist(),
        **told,
    )


def _comparison(evaluation: PixelEvaluation, val: PixelSamples, place: int) -> Comparison:
    index = int(evaluation.indices[place])
    image, mask = val.pair(index)
    truth = LabelMap(val.keys[index], val.classes, mask, np.ones(len(val.class_names), np.float32))
    return Comparison(image=image, name=val.keys[index], truth=truth, found=evaluation.kept[place])
