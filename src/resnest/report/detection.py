"""The report of a detector's run: one HTML file that needs nothing else.

    write_detection_report(run / "report.html", DetectionReport(title="cells", metrics=lines, figures=figures, ...))

It shows box AP and, of a detector with masks, mask AP; the curves; COCO's twelve figures in words; every class with its
precision-recall curve; and the pictures with the most errors, what was missed and what is not there drawn on them.
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
from resnest.report.parts import curves, figure_line, figures_table, header, keys, mistakes_section, recipe_section
from resnest.report.pictures import Mark, marked_picture
from resnest.report.plots import MAX_LINES, precision_plot

MAX_CLASSES = 100
SMALL, LARGE = "32 x 32", "96 x 96"  # COCO's limits of small and large objects, pixels
OVERLAPS = "mean over overlaps (IoU) of 0.50, 0.55, ... 0.95"
MEANING = {
    "ap": ("AP", f"average precision, {OVERLAPS}"),
    "ap50": ("AP50", "a detection counts from an overlap of 0.50 on"),
    "ap75": ("AP75", "from 0.75 on: boxes that fit"),
    "aps": ("AP small", f"objects of less than {SMALL} pixels"),
    "apm": ("AP medium", f"{SMALL} to {LARGE}"),
    "apl": ("AP large", f"more than {LARGE}"),
    "ar1": ("AR 1", f"share of the objects found with one detection an image, {OVERLAPS}"),
    "ar10": ("AR 10", "with ten"),
    "ar100": ("AR {most}", "with {most}"),
    "ars": ("AR small", f"of objects of less than {SMALL} pixels"),
    "arm": ("AR medium", f"{SMALL} to {LARGE}"),
    "arl": ("AR large", f"more than {LARGE}"),
}


@dataclass(frozen=True, kw_only=True)
class DetectionClass:
    """Figures of one class, fractions; NaN where there is nothing to count."""

    name: str
    objects: int  # that were there to be found; crowds are not
    box_ap: float
    box_ap50: float
    mask_ap: float = math.nan
    mask_ap50: float = math.nan
    precision: Sequence[float] = ()  # (101,) of boxes at IoU 0.5, at recalls of 0, 0.01, ... 1; empty: not drawn


@dataclass(frozen=True, kw_only=True)
class Miss:
    """One picture with errors."""

    image: Image.Image  # RGB, any size, without drawings: they are made here
    name: str  # path relative to the data set
    marks: Sequence[Mark] = ()  # what was missed and what is not there, in pixels of `image`
    caption: str = ""  # besides the numbers of both, which are counted here


@dataclass(frozen=True, kw_only=True)
class DetectionReport:
    """The evidence of a run; the page is a function of it alone."""

    title: str  # the run's name
    metrics: Sequence[Mapping[str, Any]]  # the lines of metrics.jsonl
    figures: Mapping[str, float]  # of the evaluation below: box_ap, box_ap50, ... box_arl, and mask_ap ... if there are
    classes: Sequence[DetectionClass]
    images: int  # that were evaluated
    misses: Sequence[Miss]  # most errors first
    facts: Mapping[str, str]  # short label -> value, in order
    recipe: str  # the resolved recipe as YAML text
    bad_images: int = 0  # images skipped because they could not be read
    monitor: str = "box_ap"  # the figure that decided which weights are best
    max_detections: int = 100  # an image, the most that the figures count; n of box_arn

    @property
    def kinds(self) -> list[str]:
        """What was evaluated: boxes, and masks if their AP is among the figures."""
        return ["box", "mask"] if "mask_ap" in self.figures else ["box"]


def write_detection_report(path: Path, report: DetectionReport) -> None:
    """Write the page; an existing one is replaced in one step."""
    history = read_history(report.metrics)
    shares = [
        (f"{kind.capitalize()} AP", (f"{kind}_ap", "AP, %"), (f"{kind}_ap50", "AP50, %")) for kind in report.kinds
    ]
    sections = [
        curves(history, *shares[0], also=shares[1:]),
        *([section("Figures", *_figures(report))] if report.figures else []),
        section("Classes", *_classes(report)),
        *_precision(report.classes),
        _misses(report),
        recipe_section(report.recipe),
    ]
    footer = (
        "AP is COCO's: the mean precision at 101 recalls, over ten overlaps and over all classes that have objects."
        " It covers neither the chance in training nor the choice of the best epoch."
    )
    kind = "Instance segmentation" if len(report.kinds) > 1 else "Object detection"
    top = header(kind, report.title, _headline(report, history), facts=report.facts, bad_images=report.bad_images)
    write_atomically(path, page(report.title, top, sections, footer=footer))


def _headline(report: DetectionReport, history: History) -> str:
    best = history.best_by(report.monitor)
    known = report.figures or best or {}
    if not math.isfinite(number(known, "box_ap")):
        return '<p class="empty">No evaluation yet.</p>'
    when = f", epoch {number(best, 'epoch'):g} of {history.last_epoch:g}" if best else ""
    parts = []
    for place, kind in enumerate(report.kinds):
        lines = [
            f"{kind.capitalize()} AP{when if not place else ''}",
            '<span class="faint">'
            f"AP50 {_percent(known, f'{kind}_ap50')}, AP75 {_percent(known, f'{kind}_ap75')}</span>",
        ]
        if not place and report.images:
            lines.append(f'<span class="faint">on {count(report.images, "image")}</span>')
        parts.append(f"<div>{figure_line(_percent(known, f'{kind}_ap'), lines)}</div>")
    return parts[0] if len(parts) == 1 else f'<div class="figures">{"".join(parts)}</div>'


def _percent(figures: Mapping[str, Any], key: str) -> str:
    """COCO's -1 stands for nothing to count."""
    value = number(figures, key)
    return percent(math.nan if value < 0 else value)


def _figures(report: DetectionReport) -> tuple[str, str]:
    """Note and body of the section of the twelve figures."""
    names = {"box": "Boxes", "mask": "Masks"}
    most = f"{report.max_detections:,}"
    meanings = {key.replace("ar100", f"ar{report.max_detections}"): told for key, told in MEANING.items()}
    rows = (
        (
            name.format(most=most),
            [_percent(report.figures, f"{kind}_{key}") for kind in report.kinds],
            meaning.format(most=most),
        )
        for key, (name, meaning) in meanings.items()
    )
    body = figures_table([names[kind] for kind in report.kinds], rows)
    return "COCO's twelve. A dash: there is no such object among the images.", body


def _classes(report: DetectionReport) -> tuple[str, str]:
    """Note and body of the section on single classes."""
    masks = len(report.kinds) > 1
    rows = sorted(report.classes, key=lambda row: (math.isnan(row.box_ap), row.box_ap, -row.objects))
    shown = rows[:MAX_CLASSES]
    note = class_notes(
        "Lowest box AP first.",
        classes=len(rows),
        shown=len(shown),
        without=sum(row.objects == 0 for row in rows),
        things="objects",
    )
    heads = '<th class="num">Mask AP</th><th class="num">AP50</th>' if masks else ""
    body = "".join(
        f'<tr><th scope="row" class="cut" title="{clip(row.name)}">{clip(row.name)}</th>'
        f'<td class="num">{row.objects:,}</td>{share_cells(row.box_ap)}<td class="num">{percent(row.box_ap50)}</td>'
        + (f'<td class="num">{percent(row.mask_ap)}</td><td class="num">{percent(row.mask_ap50)}</td>' * masks)
        + "</tr>\n"
        for row in shown
    )
    return (
        note,
        f"""<table class="list">
<thead><tr><th>Class</th><th class="num">Objects</th><th class="num">{"Box AP" if masks else "AP"}</th>\
<th class="wide"></th><th class="num">AP50</th>{heads}</tr></thead>
<tbody>{body}</tbody></table>""",
    )


def _precision(classes: Sequence[DetectionClass]) -> list[str]:
    """The section of precision-recall curves: a line a class if they are few, and their mean."""
    drawn = [row for row in classes if len(row.precision) and row.objects]
    if not drawn:
        return []
    each = len(drawn) <= MAX_LINES
    svg = precision_plot([row.precision for row in drawn], each=each)
    names = [row.name for row in drawn] if each else []
    legend = keys(names, mean=len(drawn) > 1 or not each)
    note = (
        "Of boxes that overlap by half (IoU 0.5): how many of those given are right, over how many of the objects are"
        " found. A line that ends early: the rest is never found."
    )
    if not each:
        note += f" The mean of {len(drawn)} classes."
    figure = f'<figure class="large"><figcaption>{legend}</figcaption>{svg}</figure>'
    return [section("Precision and recall", note, f'<div class="plots">{figure}</div>')]


def _misses(report: DetectionReport) -> str:
    errors = sum(len(miss.marks) for miss in report.misses)
    note = f"The {count(len(report.misses), 'picture')} with the most errors."
    shown = (
        '<span class="key missed">missed</span> <span class="key false">not there, or another class</span>'
        " Point at a frame for its class and score."
    )
    pictures = [marked_picture(miss.image, miss.name, miss.marks, _told(miss)) for miss in report.misses]
    return mistakes_section(report.images, errors, note, shown, pictures, kind="large")


def _told(miss: Miss) -> str:
    missed = sum(mark.kind == "missed" for mark in miss.marks)
    false = len(miss.marks) - missed
    parts = ([f"{missed:,} missed"] if missed else []) + ([count(false, "false alarm")] if false else [])
    return f"<b>{', '.join(parts)}</b> {clip(miss.caption)}".strip() if parts else clip(miss.caption)
