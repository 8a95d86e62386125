"""The report of a panoptic detector's run: one HTML file that needs nothing else.

    write_panoptic_report(run / "report.html", PanopticReport(title="rooms", metrics=lines, figures=figures, ...))

It shows panoptic quality and the two that it is the product of, of things and of stuff; the curves; every class; and
the pictures where it is lowest: as they are, the segments that are there, and those that were found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnest.report.comparisons import Comparison, colour_keys, compared_picture, patch_colour
from resnest.report.confusion import share_cells
from resnest.report.history import History, number, read_history
from resnest.report.page import class_notes, clip, count, page, percent, section, write_atomically
from resnest.report.parts import curves, figure_line, figures_table, header, mistakes_section, recipe_section
from resnest.runtime.palette import Colour

MAX_CLASSES = 160  # all of COCO's
KINDS = {"": "all", "_things": "things", "_stuff": "stuff"}
MEANING = {
    "pq": ("PQ", "panoptic quality: SQ times RQ, of each class; the mean of the classes"),
    "sq": ("SQ", "segmentation quality: how well the segments that were found fit (mean IoU)"),
    "rq": ("RQ", "recognition quality: how many there are that were found, and found that are there (F1)"),
}


@dataclass(frozen=True, kw_only=True)
class PanopticClass:
    """Figures of one class, fractions; NaN where there is nothing to count."""

    name: str
    thing: bool
    colour: Colour
    segments: int  # that were there to be found
    pq: float
    sq: float
    rq: float


@dataclass(frozen=True, kw_only=True)
class PanopticMiss:
    """One picture with errors."""

    regions: Comparison
    pq: float  # mean over its classes
    missed: int  # segments that are there
    false: int  # segments that are not


@dataclass(frozen=True, kw_only=True)
class PanopticReport:
    """The evidence of a run; the page is a function of it alone."""

    title: str  # the run's name
    metrics: Sequence[Mapping[str, Any]]  # the lines of metrics.jsonl
    figures: Mapping[str, float]  # of the evaluation below: pq, sq, rq, and with _things and _stuff behind them
    classes: Sequence[PanopticClass]
    images: int  # that were evaluated
    misses: Sequence[PanopticMiss]  # the worst first
    facts: Mapping[str, str]  # short label -> value, in order
    recipe: str  # the resolved recipe as YAML text
    bad_images: int = 0  # images skipped because they could not be read
    monitor: str = "pq"  # the figure that decided which weights are best


def write_panoptic_report(path: Path, report: PanopticReport) -> None:
    """Write the page; an existing one is replaced in one step."""
    history = read_history(report.metrics)
    sections = [
        curves(history, "PQ", ("pq", "PQ, %"), ("rq", "RQ, %"), also=[_by_kind()]),
        *([section("Figures", *_figures(report))] if report.figures else []),
        section("Classes", *_classes(report)),
        _misses(report),
        recipe_section(report.recipe),
    ]
    footer = (
        "A segment is found if one of its class shares more than half of the pixels of both (IoU above 0.5)."
        " PQ covers neither the chance in training nor the choice of the best epoch."
    )
    top = header(
        "Panoptic segmentation",
        report.title,
        _headline(report, history),
        facts=report.facts,
        bad_images=report.bad_images,
    )
    write_atomically(path, page(report.title, top, sections, footer=footer))


def _by_kind() -> tuple[str, tuple[str, str], tuple[str, str]]:
    return "PQ by kind", ("pq_things", "things, %"), ("pq_stuff", "stuff, %")


def _headline(report: PanopticReport, history: History) -> str:
    best = history.best_by(report.monitor)
    known = report.figures or best or {}
    if not math.isfinite(number(known, "pq")):
        return '<p class="empty">No evaluation yet.</p>'
    when = f", epoch {number(best, 'epoch'):g} of {history.last_epoch:g}" if best else ""
    kinds = ", ".join(f"{kind} {percent(number(known, f'pq{key}'))}" for key, kind in KINDS.items() if key)
    lines = [f"Panoptic quality{when}", f'<span class="faint">{kinds}</span>']
    if report.images:
        lines.append(f'<span class="faint">on {count(report.images, "picture")}</span>')
    return figure_line(percent(number(known, "pq")), lines)


def _figures(report: PanopticReport) -> tuple[str, str]:
    """Note and body of the section of the nine figures."""
    rows = (
        (name, [percent(number(report.figures, f"{key}{kind}")) for kind in KINDS], meaning)
        for key, (name, meaning) in MEANING.items()
    )
    body = figures_table([kind.capitalize() for kind in KINDS.values()], rows)
    return "Of all classes, of things (what can be counted) and of stuff (what cannot).", body


def _classes(report: PanopticReport) -> tuple[str, str]:
    """Note and body of the section on single classes."""
    rows = sorted(report.classes, key=lambda row: (math.isnan(row.pq), row.pq, -row.segments))
    shown = rows[:MAX_CLASSES]
    note = class_notes(
        "Lowest PQ first.",
        classes=len(rows),
        shown=len(shown),
        without=sum(row.segments == 0 for row in rows),
        things="segments",
    )
    body = "".join(
        f'<tr><th scope="row" class="cut patch" style="{patch_colour(row.colour)}" title="{clip(row.name)}"><i></i>'
        f'{clip(row.name)}</th><td class="extra faint">{"thing" if row.thing else "stuff"}</td>'
        f'<td class="num">{row.segments:,}</td>{share_cells(row.pq)}'
        f'<td class="num">{percent(row.sq)}</td><td class="num">{percent(row.rq)}</td></tr>\n'
        for row in shown
    )
    return (
        note,
        f"""<table class="list">
<thead><tr><th>Class</th><th class="extra">Kind</th><th class="num">Segments</th><th class="num">PQ</th>\
<th class="wide"></th><th class="num">SQ</th><th class="num">RQ</th></tr></thead>
<tbody>{body}</tbody></table>""",
    )


def _misses(report: PanopticReport) -> str:
    pictures = [compared_picture(miss.regions, _told(miss)) for miss in report.misses]
    return mistakes_section(
        report.images,
        sum(miss.missed + miss.false for miss in report.misses),
        f"The {count(len(pictures), 'picture')} with the lowest PQ, mean over their classes.",
        "Left the picture, in the middle the truth, right the prediction: each object has a shade of its own. Grey"
        " belongs to no segment.",
        pictures,
        kind="compared",
        above=colour_keys([miss.regions for miss in report.misses]),
    )


def _told(miss: PanopticMiss) -> str:
    return f"<b>PQ {percent(miss.pq)}</b><span>{miss.missed:,} missed, {count(miss.false, 'false segment')}</span>"
