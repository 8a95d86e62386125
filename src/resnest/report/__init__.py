"""One self-contained page that shows what a training run did.

One function per task; each takes its evidence as one frozen object and writes one file.

    write_report(run / "report.html", ClassificationReport(title="flowers", metrics=lines, confusion=matrix, ...))
"""

from resnest.report.classification import ClassificationReport, Mistake, write_report
from resnest.report.multilabel import ClassRow, LabelMistake, MultiLabelReport, write_multi_label_report

__all__ = [
    "ClassRow",
    "ClassificationReport",
    "LabelMistake",
    "Mistake",
    "MultiLabelReport",
    "write_multi_label_report",
    "write_report",
]
