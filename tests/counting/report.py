"""The report of a counter: how often it is right, and where it is most wrong."""

from __future__ import annotations

from counting.data import CountSamples
from counting.evaluation import CountingEvaluation
from resnest.report.charts import History
from resnest.report.page import Report
from resnest.report.parts import Caption, Picture, curves_section, headlines, mistakes_section


def counting_report(evaluation: CountingEvaluation, samples: CountSamples, history: History) -> Report:
    pictures = [_mistake(evaluation, samples, place) for place in evaluation.worst(12).tolist()]
    wrong = int((evaluation.errors != 0).sum())
    return Report(
        kind="Counting",
        headlines=headlines(evaluation.figures["exact"], f"Exact counts{history.when}"),
        sections=[
            curves_section(history, ("Exact counts", ("exact", "exact, %"), ("near", "off by one at most, %"))),
            mistakes_section(pictures, "The largest errors first.", images=evaluation.count, errors=wrong),
        ],
        footnote="A count is the network's output, rounded.",
    )


def _mistake(evaluation: CountingEvaluation, samples: CountSamples, place: int) -> Picture:
    index = int(evaluation.indices[place])
    caption = Caption(f"{evaluation.errors[place]:+d} dots", strong=True)
    return Picture(name=samples.keys[index], images=[samples.decode(index)], captions=[caption])
