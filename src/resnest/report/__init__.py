"""One self-contained page that shows what a training run did.

One function per task; each takes its evidence as one frozen object and writes one file.

    write_report(run / "report.html", ClassificationReport(title="flowers", metrics=lines, confusion=matrix, ...))
"""

from resnest.report.classification import ClassificationReport, Mistake, write_report

__all__ = ["ClassificationReport", "Mistake", "write_report"]
