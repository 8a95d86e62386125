"""One self-contained page that shows what a training run did.

One function per task; each takes its evidence as one frozen object and writes one file.

    write_report(run / "report.html", ClassificationReport(title="flowers", metrics=lines, confusion=matrix, ...))
"""

from resnest.report.classification import ClassificationReport, Mistake, write_report
from resnest.report.comparisons import Comparison
from resnest.report.detection import DetectionClass, DetectionReport, Miss, write_detection_report
from resnest.report.multilabel import ClassRow, LabelMistake, MultiLabelReport, write_multi_label_report
from resnest.report.panoptic import PanopticClass, PanopticMiss, PanopticReport, write_panoptic_report
from resnest.report.pictures import Mark
from resnest.report.segmentation import SegmentationReport, write_segmentation_report

__all__ = [
    "ClassRow",
    "ClassificationReport",
    "Comparison",
    "DetectionClass",
    "DetectionReport",
    "LabelMistake",
    "Mark",
    "Miss",
    "Mistake",
    "MultiLabelReport",
    "PanopticClass",
    "PanopticMiss",
    "PanopticReport",
    "SegmentationReport",
    "write_detection_report",
    "write_multi_label_report",
    "write_panoptic_report",
    "write_report",
    "write_segmentation_report",
]
