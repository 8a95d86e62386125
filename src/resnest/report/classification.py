"""The report of a classification run: one HTML file that needs nothing else.

    write_report(run / "report.html", ClassificationReport(title="flowers", metrics=lines, confusion=matrix, ...))

It shows the best top-1 with its uncertainty, the curves, which classes are confused, the most confident mistakes as
pictures, and the settings that led to it all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.metrics import wilson_interval
from resnest.report.confusion import class_view, confusion_view
from resnest.report.history import Evaluation, History, read_history
from resnest.report.page import clip, count, page, percent, section, write_atomically
from resnest.report.parts import curves, figure_line, header, mistakes_section, picture, recipe_section


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One image that was classified wrongly."""

    image: Image.Image  # RGB, any size; thumbnails are made here
    name: str  # path relative to the data set
    truth: str
    predicted: str
    score: float  # 0..1, the probability of the predicted class
    truth_score: float  # 0..1, the probability of the true class


@dataclass(frozen=True, kw_only=True)
class ClassificationReport:
    """The evidence of a run; the page is a function of it alone."""

    title: str  # the run's name
    metrics: Sequence[Mapping[str, Any]]  # the lines of metrics.jsonl
    confusion: NDArray[np.int64]  # (K, K), rows = truth, columns = prediction
    class_names: Sequence[str]
    mistakes: Sequence[Mistake]  # the most confident wrong ones, worst first
    facts: Mapping[str, str]  # short label -> value, in order
    recipe: str  # the resolved recipe as YAML text
    bad_images: int = 0  # images skipped because they could not be read

    def __post_init__(self) -> None:
        classes = len(self.class_names)
        if self.confusion.shape != (classes, classes):
            raise ValueError(f"confusion has the shape {self.confusion.shape}, but there are {classes} class names")

    @property
    def images(self) -> int:
        """Number of evaluated images."""
        return int(self.confusion.sum())

    @property
    def errors(self) -> int:
        """Number of images that were classified wrongly."""
        return self.images - int(self.confusion.trace())


def write_report(path: Path, report: ClassificationReport) -> None:
    """Write the page; an existing one is replaced in one step."""
    history = read_history(report.metrics)
    matrix, names = report.confusion, report.class_names
    sections = [curves(history, "Accuracy", ("top1", "top-1, %"), ("top5", "top-5, %"))]
    if report.images:
        sections.append(section("Confusions", *confusion_view(matrix, names)))
        sections.append(section("Classes", *class_view(matrix, names)))
    sections += [_mistakes(report), recipe_section(report.recipe)]
    footer = (
        "The interval is Wilson's for a share, at 95 %. It covers the chance in which images were evaluated,"
        " not the chance in training, nor the choice of the best epoch."
    )
    top = header(
        "Image classification",
        report.title,
        _headline(report, history),
        facts=report.facts,
        bad_images=report.bad_images,
    )
    write_atomically(path, page(report.title, top, sections, footer=footer))


def _headline(report: ClassificationReport, history: History) -> str:
    """The best top-1: as logged, or from the matrix if no evaluation was logged."""
    images, best = report.images, history.best
    digits = 1 if images < 1000 else 2  # one image of 1000 is 0.1 %
    if best is None and not images:
        return '<p class="empty">No evaluation yet.</p>'
    of_matrix = 1 - report.errors / images if images else math.nan
    top1 = best.top1 if best else of_matrix
    lines = [f"Top-1 accuracy{_circumstances(best, history.last_epoch)}"]
    if images:
        low, high = wilson_interval(top1 * images, images)
        interval = f"{percent(low, digits).removesuffix('&nbsp;%')} to {percent(high, digits)}"
        lines.append(f'<span class="faint">95 % interval {interval} on {count(images, "image")}</span>')
    if abs(top1 - of_matrix) > 5e-4:  # more than rounding: say so rather than let the reader wonder
        lines.append(f'<span class="faint">The matrix below is another evaluation: {percent(of_matrix, digits)}</span>')
    return figure_line(percent(top1, digits), lines)


def _circumstances(best: Evaluation | None, last_epoch: float) -> str:
    if best is None:
        return ""
    text = f", epoch {best.epoch:g} of {last_epoch:g}"
    if math.isfinite(best.top5):
        text += f"; top-5 {percent(best.top5)}"
    return text


def _mistakes(report: ClassificationReport) -> str:
    return mistakes_section(
        report.images,
        report.errors,
        f"{count(report.errors, 'mistake')} on {count(report.images, 'image')}.",
        f"Here are the {len(report.mistakes)} most confident. Below each picture: what it was taken for,"
        " what it is, and the probability that the network gave to each.",
        [_mistake(mistake) for mistake in report.mistakes],
    )


def _mistake(mistake: Mistake) -> str:
    return picture(
        mistake.image,
        mistake.name,
        f"""<div class="pair">
<b class="cut" title="predicted {clip(mistake.predicted)}">{clip(mistake.predicted)}</b>
<span class="shown">{percent(mistake.score)}</span>
<span class="cut" title="truth {clip(mistake.truth)}">is {clip(mistake.truth)}</span>
<span>{percent(mistake.truth_score)}</span>
</div>""",
    )
