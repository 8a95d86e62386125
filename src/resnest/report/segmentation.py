"""The report of a segmenter's run: one HTML file that needs nothing else.

    write_segmentation_report(run / "report.html", SegmentationReport(title="streets", metrics=lines, ...))

It shows mIoU and pixel accuracy; the curves; which class is taken for which; every class with its share of the pixels;
and the pictures with the lowest IoU: as they are, as they should be labelled, and as they were.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.report.comparisons import Comparison, colour_keys, compared_picture, patch_colour
from resnest.report.confusion import confusion_view, recall_and_precision, share_cells
from resnest.report.history import History, number, read_history
from resnest.report.page import class_notes, clip, count, page, percent, section, write_atomically
from resnest.report.parts import curves, figure_line, header, mistakes_section, recipe_section
from resnest.runtime.label_map import LabelMap, PixelClasses
from resnest.runtime.palette import class_colours

MAX_CLASSES = 160  # all of ADE20K


@dataclass(frozen=True, kw_only=True)
class SegmentationReport:
    """The evidence of a run; the page is a function of it alone."""

    title: str  # the run's name
    metrics: Sequence[Mapping[str, Any]]  # the lines of metrics.jsonl
    figures: Mapping[str, float]  # of the evaluation below: miou, pixel_accuracy, mean_accuracy
    classes: PixelClasses
    confusion: NDArray[np.int64]  # (K, K) pixels, rows: truth
    class_iou: Sequence[float]  # (K,) fractions, NaN for a class that is neither there nor found
    images: int  # that were evaluated
    worst: Sequence[Comparison]  # lowest IoU first
    worst_iou: Sequence[float]  # of those pictures, mean over their classes
    facts: Mapping[str, str]  # short label -> value, in order
    recipe: str  # the resolved recipe as YAML text
    bad_images: int = 0  # images skipped because they could not be read
    monitor: str = "miou"  # the figure that decided which weights are best


def write_segmentation_report(path: Path, report: SegmentationReport) -> None:
    """Write the page; an existing one is replaced in one step."""
    history = read_history(report.metrics)
    sections = [curves(history, "mIoU", ("miou", "mIoU, %"), ("pixel_accuracy", "pixels, %"))]
    if report.confusion.any():
        sections.append(section("Classes", *_classes(report)))
        sections.append(
            section("Confusions", *confusion_view(report.confusion, report.classes.names, counted="pixels"))
        )
    sections += [_worst(report), recipe_section(report.recipe)]
    footer = (
        "IoU of a class: the pixels that truth and prediction both give it, by those that either does, of all pictures"
        " together; mIoU is the mean over classes. It covers neither the chance in training nor the choice of the best"
        " epoch."
    )
    top = header(
        "Semantic segmentation",
        report.title,
        _headline(report, history),
        facts=report.facts,
        bad_images=report.bad_images,
    )
    write_atomically(path, page(report.title, top, sections, footer=footer))


def _headline(report: SegmentationReport, history: History) -> str:
    best = history.best_by(report.monitor)
    known = report.figures or best or {}
    if not math.isfinite(number(known, "miou")):
        return '<p class="empty">No evaluation yet.</p>'
    when = f", epoch {number(best, 'epoch'):g} of {history.last_epoch:g}" if best else ""
    lines = [f"Mean IoU{when}"]
    if report.images:
        lines.append(f'<span class="faint">on {count(report.images, "picture")}</span>')
    others = ["Pixel accuracy", f'<span class="faint">mean of classes {_figure(known, "mean_accuracy")}</span>']
    parts = [figure_line(_figure(known, "miou"), lines), figure_line(_figure(known, "pixel_accuracy"), others)]
    return f'<div class="figures">{"".join(f"<div>{part}</div>" for part in parts)}</div>'


def _figure(figures: Mapping[str, Any], key: str) -> str:
    return percent(number(figures, key))


def _classes(report: SegmentationReport) -> tuple[str, str]:
    """Note and body of the section on single classes."""
    pixels, iou = report.confusion.sum(1), np.asarray(report.class_iou, np.float64)
    recall, precision = recall_and_precision(report.confusion)
    order = np.lexsort((-pixels, np.nan_to_num(iou, nan=2.0)))
    colours = class_colours(report.classes)
    note = class_notes(
        "Lowest IoU first. Found: of the pixels of a class, how many were given it. Right: of those given it, how many"
        " are of the class.",
        classes=len(order),
        shown=len(order[:MAX_CLASSES]),
        without=int((pixels == 0).sum()),
        things="pixels",
    )
    body = "".join(
        f'<tr><th scope="row" class="cut patch" style="{patch_colour(colours[k])}" title="{clip(name)}"><i></i>'
        f'{clip(name)}</th><td class="num">{percent(pixels[k] / pixels.sum())}</td>{share_cells(iou[k])}'
        f'<td class="num">{percent(recall[k])}</td><td class="num">{percent(precision[k])}</td></tr>\n'
        for k in order[:MAX_CLASSES].tolist()
        for name in [report.classes.names[k]]
    )
    return (
        note,
        f"""<table class="list">
<thead><tr><th>Class</th><th class="num">Of all pixels</th><th class="num">IoU</th><th class="wide"></th>\
<th class="num">Found</th><th class="num">Right</th></tr></thead>
<tbody>{body}</tbody></table>""",
    )


def _worst(report: SegmentationReport) -> str:
    wrong = int(report.confusion.sum() - report.confusion.trace())
    pictures = [compared_picture(one, _told(one, iou)) for one, iou in zip(report.worst, report.worst_iou, strict=True)]
    return mistakes_section(
        report.images,
        wrong,
        f"The {count(len(pictures), 'picture')} with the lowest IoU, mean over their classes.",
        "Left the picture, in the middle the truth, right the prediction. Grey does not count.",
        pictures,
        kind="compared",
        above=colour_keys(report.worst),
    )


def _told(one: Comparison, iou: float) -> str:
    """The IoU, how many pixels are wrong, and what was taken for what most often."""
    assert isinstance(one.truth, LabelMap)
    assert isinstance(one.found, LabelMap)
    names = one.found.classes.names
    counts = one.truth.labels < len(names)
    wrong = counts & (one.truth.labels != one.found.labels)
    told = f"<b>IoU {percent(iou)}</b><span>{percent(wrong.sum() / max(counts.sum(), 1))} of the pixels wrong</span>"
    if not wrong.any():
        return told
    pairs = one.truth.labels[wrong].astype(np.int64) * len(names) + one.found.labels[wrong]
    true, found = divmod(int(np.bincount(pairs).argmax()), len(names))
    return f"{told}<span>most often {clip(names[true], 30)} taken for {clip(names[found], 30)}</span>"
