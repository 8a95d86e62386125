"""`folds.html`: the folds of a cross-validation, with mean and spread of their figures.

write_folds_page(out / "folds.html", rows, summary, titles, monitor="top1", facts={"Recipe": "imagenette"})
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from resnest.figures import percent
from resnest.report.charts import MAX_LINES, History, folds_chart, series
from resnest.report.page import NO_BREAK, Section, render, write_html
from resnest.report.parts import Chart, Column, Key, table

STATISTICS = {"mean": "Mean", "std": "Standard deviation", "min": "Lowest", "max": "Highest"}


@dataclass(frozen=True)
class FoldRow:
    """One fold's run; figures are those of its best weights on its held-out images."""

    name: str  # of its folder, beside the page
    train: int  # images
    val: int
    figures: Mapping[str, float]
    history: History


@dataclass(frozen=True)
class Spread:
    """One figure over the folds, a fraction; `std` is the sample's, with n - 1."""

    mean: float
    std: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.fmean(values), statistics.stdev(values), min(values), max(values))


def show_figure(key: str, value: float) -> str:
    return f"{value:.4f}" if key == "loss" else percent(value)


def write_folds_page(
    path: Path,
    rows: Sequence[FoldRow],
    summary: Mapping[str, Spread],
    titles: Mapping[str, str],
    *,
    monitor: str,
    facts: Mapping[str, str],
) -> None:
    """Write the page atomically.

    Args:
        titles: of the figures that are shown, by key.
        monitor: key of the figure by which the best weights were chosen.
    """
    main = summary[monitor]
    points = f"{100 * main.std:.2f}{NO_BREAK}points" if monitor != "loss" else f"{main.std:.4f}"
    lead = (
        f"{titles[monitor]} {show_figure(monitor, main.mean)} on average over {len(rows)} folds, with a standard"
        f" deviation of {points}: {show_figure(monitor, main.min)} to {show_figure(monitor, main.max)}."
    )
    write_html(
        path,
        "data.html",
        kind="Cross-validation",
        title=path.resolve().parent.name,
        description=lead,
        facts=dict(facts),
        sections=[
            _folds_section(rows, titles, monitor),
            _spread_section(summary, titles),
            _curves_section(rows, titles, monitor),
        ],
        footnote="Each fold is measured on images that its run was not trained on. Its best weights are chosen by the"
        " same images, as in every run, which flatters the figures a little.",
    )


def _folds_section(rows: Sequence[FoldRow], titles: Mapping[str, str], monitor: str) -> Section:
    others = [key for key in titles if key not in (monitor, "loss")]
    columns = [
        Column("Fold", "name", [row.name for row in rows]),
        Column("Training images", "count", [row.train for row in rows]),
        Column("Held out", "count", [row.val for row in rows]),
        *(Column(titles[key], "percent", [row.figures[key] for row in rows]) for key in others[:2]),
        Column(titles[monitor], "share", [row.figures[monitor] for row in rows]),
    ]
    links = Markup("").join(
        Markup('<li><a href="{0}/report.html">The report of {0}</a></li>').format(row.name) for row in rows
    )
    body = table(columns, range(len(rows))) + Markup('<ul class="lines">{}</ul>').format(links)
    return Section("Folds", body, ["Figures of the best weights of each run, on the images held out."])


def _spread_section(summary: Mapping[str, Spread], titles: Mapping[str, str]) -> Section:
    columns = [Column("Figure", "name", list(titles.values()))]
    for name, title in STATISTICS.items():
        shown = [show_figure(key, getattr(summary[key], name)) for key in titles]
        columns.append(Column(title, "name", shown))
    note = (
        "The standard deviation is the sample's, with n - 1. Folds share training images: it is no confidence interval."
    )
    return Section("Spread", table(columns, range(len(titles))), [note])


def _curves_section(rows: Sequence[FoldRow], titles: Mapping[str, str], monitor: str) -> Section:
    curves = [series(row.history.evals, monitor) for row in rows]
    keys = [Key(row.name, "line", f"var(--line-{k})") for k, row in enumerate(rows)] if len(rows) <= MAX_LINES else []
    chart = Chart(
        f"{titles[monitor]}, %", keys, folds_chart(curves, label=f"{titles[monitor]} of each fold over epochs")
    )
    return Section(
        "Curves", render("charts.html", charts=[chart], large=True), ["On the images held out, over epochs."]
    )
