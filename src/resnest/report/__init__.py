"""One self-contained page that shows what a training run did.

One function per task; each takes its evidence as one frozen object and writes one file.

    write_report(run / "report.html", ClassificationReport(title="flowers", metrics=lines, confusion=matrix, ...))
"""

from resnest.report.classification import ClassificationReport, Mistake, write_report
from resnest.report.detection import DetectionClass, DetectionReport, Miss, write_detection_report
from resnest.report.multilabel import ClassRow, LabelMistake, MultiLabelReport, write_multi_label_report
from resnest.report.pictures import Mark

__all__ = [
    "ClassRow",
    "ClassificationReport",
    "DetectionClass",
    "DetectionReport",
    "LabelMistake",
    "Mark",
    "Miss",
    "Mistake",
    "MultiLabelReport",
    "write_detection_report",
    "write_multi_label_report",
    "write_report",
]
