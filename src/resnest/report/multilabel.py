"""The report of a multi-label run: one HTML file that needs nothing else.

    write_multi_label_report(run / "report.html", MultiLabelReport(title="street", metrics=lines, classes=rows, ...))

It shows the best mean average precision, the curves, the figures of every class, and the pictures with the highest
loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from resnest.report.confusion import share_cells
from resnest.report.history import History, number, read_history
from resnest.report.page import class_notes, clip, count, page, percent, section, write_atomically
from resnest.report.parts import curves, figure_line, header, mistakes_section, picture, recipe_section

MAX_CLASSES = 100
MAX_LABELS = 3  # of a kind below a picture

Scored = Sequence[tuple[str, float]]  # labels with the scores that the network gave them, 0..1


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """Figures of one class, fractions; NaN where there is nothing to count."""

    name: str
    images: int
    average_precision: float
    recall: float
    precision: float


@dataclass(frozen=True, kw_only=True)
class LabelMistake:
    """One image with a wrong or a missing label."""

    image: Image.Image  # RGB, any size; thumbnails are made here
    name: str  # path relative to the data set
    wrong: Scored  # given, but not true
    missed: Scored  # true, but not given
    right: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class MultiLabelReport:
    """The evidence of a run; the page is a function of it alone."""

    title: str  # the run's name
    metrics: Sequence[Mapping[str, Any]]  # the lines of metrics.jsonl
    figures: Mapping[str, float]  # of the evaluation below: map, f1_micro, f1_macro
    classes: Sequence[ClassRow]
    images: int  # that were evaluated
    errors: int  # of them, with a wrong or a missing label
    mistakes: Sequence[LabelMistake]  # with the highest loss, worst first
    facts: Mapping[str, str]  # short label -> value, in order
    recipe: str  # the resolved recipe as YAML text
    bad_images: int = 0  # images skipped because they could not be read


def write_multi_label_report(path: Path, report: MultiLabelReport) -> None:
    """Write the page; an existing one is replaced in one step."""
    history = read_history(report.metrics)
    headline = _headline(report, history)
    sections = [
        curves(history, "mAP and F1", ("map", "mAP, %"), ("f1_micro", "F1, %")),
        section("Classes", *_classes(report.classes)),
        _mistakes(report),
        recipe_section(report.recipe),
    ]
    footer = (
        "Average precision is the area under a class's precision-recall steps, without interpolation. A label is given"
        " from a score of 50 % on."
    )
    top = header("Multi-label classification", report.title, headline, facts=report.facts, bad_images=report.bad_images)
    write_atomically(path, page(report.title, top, sections, footer=footer))


def _headline(report: MultiLabelReport, history: History) -> str:
    best = history.best_by("map")
    figure = number(best, "map") if best else report.figures.get("map", math.nan)
    if not math.isfinite(figure):
        return '<p class="empty">No evaluation yet.</p>'
    when = f", epoch {number(best, 'epoch'):g} of {history.last_epoch:g}" if best else ""
    micro, macro = (percent(report.figures.get(name, math.nan)) for name in ("f1_micro", "f1_macro"))
    lines = [
        f"Mean average precision{when}",
        f'<span class="faint">F1 {micro} of all labels, {macro} mean of classes</span>',
    ]
    return figure_line(percent(figure), lines)


def _classes(classes: Sequence[ClassRow]) -> tuple[str, str]:
    """Note and body of the section on single classes."""
    rows = sorted(classes, key=lambda row: (math.isnan(row.average_precision), row.average_precision, -row.images))
    shown = rows[:MAX_CLASSES]
    note = class_notes(
        "Lowest average precision first. Recall and precision are those of the labels given.",
        classes=len(rows),
        shown=len(shown),
        without=sum(row.images == 0 for row in rows),
    )
    body = "".join(
        f'<tr><th scope="row" class="cut" title="{clip(row.name)}">{clip(row.name)}</th>'
        f'<td class="num">{row.images:,}</td>{share_cells(row.average_precision)}'
        f'<td class="num">{percent(row.recall)}</td><td class="num">{percent(row.precision)}</td></tr>\n'
        for row in shown
    )
    return (
        note,
        f"""<table class="list">
<thead><tr><th>Class</th><th class="num">Images</th><th class="num">Average precision</th><th class="wide"></th>\
<th class="num">Recall</th><th class="num">Precision</th></tr></thead>
<tbody>{body}</tbody></table>""",
    )


def _mistakes(report: MultiLabelReport) -> str:
    return mistakes_section(
        report.images,
        report.errors,
        f"{count(report.errors, 'image')} of {report.images:,} with a wrong or a missing label.",
        f"Here are the {len(report.mistakes)} with the highest loss. Below each picture: labels that are wrong,"
        " labels that are missing, the score that the network gave to each, and what was right.",
        [_mistake(mistake) for mistake in report.mistakes],
    )


def _mistake(mistake: LabelMistake) -> str:
    lines = _labels(mistake.wrong, '<b class="cut" title="{0}">{0}</b><span class="shown">{1}</span>', "wrong")
    lines += _labels(mistake.missed, '<span class="cut" title="{0}">misses {0}</span><span>{1}</span>', "missing")
    if mistake.right:
        lines += f'<span class="cut">right: {clip(", ".join(mistake.right))}</span><span></span>'
    return picture(mistake.image, mistake.name, f'<div class="pair">{lines}</div>')


def _labels(labels: Scored, form: str, kind: str) -> str:
    lines = "".join(form.format(clip(name), percent(score)) for name, score in labels[:MAX_LABELS])
    more = len(labels) - MAX_LABELS
    return lines + (f'<span class="cut">and {more} more {kind}</span><span></span>' if more > 0 else "")
