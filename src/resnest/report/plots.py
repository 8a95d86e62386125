"""Curves of a run as inline SVG that takes its colours and its font from the page.

    loss_plot(series(history.train, "loss"), series(history.evals, "loss"))     # "<svg ...>", or "" without data

matplotlib draws with stand-in colours, which are then replaced by the page's CSS variables: the same picture is
right on light and on dark paper. It is imported inside the functions because that takes a second.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np

from resnest.report.history import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 290, 205  # user units: about the pixels that a plot gets in a row of three, and on a phone
WIDE, HIGH = 480, 300  # of a plot that stands alone
LEFT, RIGHT, BOTTOM, TOP = 40, 6, 26, 8  # margins; equal in all plots, so that their axes line up
MAX_POINTS = 400  # more than the pixels of the axis only makes the file bigger

ACCENT, MUTED, RULE = "#0f766e", "#74797f", "#dededa"
# Lines of classes: hues that stay apart for most colour-blind readers (Okabe and Ito's, and their neighbours).
LINES = ("#0072b1", "#d55e01", "#009e72", "#cc79a6", "#b89501", "#56b4e8", "#8c5109", "#7d3c97", "#666601", "#e7298b")
MAX_LINES = len(LINES)
VARIABLES = {ACCENT: "var(--accent)", MUTED: "var(--muted)", RULE: "var(--rule)"} | {
    line: f"var(--line-{k})" for k, line in enumerate(LINES)
}


def loss_plot(train: Series, validation: Series) -> str:
    """Training loss (muted) and validation loss (accent) over epochs."""
    if not train.finite + validation.finite:
        return ""
    figure, axes = _canvas()
    _line(axes, train, MUTED, width=1.0)
    _line(axes, validation, ACCENT, width=2.0)
    _frame(axes, train, validation)
    _scale(axes, train, validation)
    return _svg(figure, axes, name="loss", label="Training and validation loss over epochs")


def accuracy_plot(main: Series, other: Series, *, label: str, name: str = "accuracy") -> str:
    """Two shares such as top-1 (accent, its best point marked) and top-5 (muted) in percent over epochs."""
    if not main.finite:
        return ""
    figure, axes = _canvas()
    main, other = main.scaled(100), other.scaled(100)
    _line(axes, other, MUTED, width=1.0)
    _line(axes, main, ACCENT, width=2.0)
    at = int(np.nanargmax(np.where(np.isfinite(main.values), main.values, np.nan)))
    axes.plot(main.epochs[at], main.values[at], "o", color=ACCENT, markersize=5, clip_on=False)
    _frame(axes, main)
    axes.set_ylim(top=min(axes.get_ylim()[1], 100))
    return _svg(figure, axes, name=name, label=label)


def rate_plot(rate: Series) -> str:
    """The learning rate over epochs."""
    if not rate.finite:
        return ""
    figure, axes = _canvas()
    _line(axes, rate, ACCENT, width=2.0)
    _frame(axes, rate)
    axes.set_ylim(bottom=0)
    return _svg(figure, axes, name="rate", label="Learning rate over epochs")


def precision_plot(curves: Sequence[Sequence[float]], *, each: bool) -> str:
    """Precision over recall, both in percent: the mean (accent) if there are several, and `each` of at most ten.

    A curve is given at recalls from 0 to 1 in even steps. Where its precision has come down to 0 it has ended.
    """
    if not curves:
        return ""
    figure, axes = _canvas(width=WIDE, height=HIGH)
    values = 100 * np.clip(np.nan_to_num(np.asarray([list(curve) for curve in curves], np.float64)), 0, 1)  # (K, R)
    recall = np.linspace(0, 100, values.shape[1])
    for color, line in zip(LINES, values if each else (), strict=False):
        axes.plot(recall, np.where(line > 0, line, np.nan), color=color, linewidth=1.5, clip_on=False)
    if len(values) > 1 or not each:
        axes.plot(recall, values.mean(axis=0), color=ACCENT, linewidth=2.5, clip_on=False)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    return _svg(figure, axes, name="precision", label="Precision over recall, in percent")


def thin(curve: Series, limit: int = MAX_POINTS) -> Series:
    """At most `limit` points, each the mean of its neighbours' finite values (NaN where there are none)."""
    if len(curve.values) <= limit:
        return curve
    parts = np.array_split(np.arange(len(curve.values)), limit)
    finite = [part[np.isfinite(curve.values[part])] for part in parts]
    return Series(
        epochs=np.array([curve.epochs[part].mean() for part in parts]),
        values=np.array([curve.values[part].mean() if len(part) else np.nan for part in finite]),
    )


def _style() -> AbstractContextManager[None]:
    """Text stays text, and a fixed salt gives the same bytes for the same run."""
    import matplotlib

    return matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "resnest", "font.size": 11.5})


def _canvas(*, width: int = WIDTH, height: int = HEIGHT) -> tuple[Figure, Axes]:
    """An empty plot: horizontal hairlines, no frame, numbers flush with the title above it."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with _style():
        figure = Figure(figsize=(width / 72, height / 72))  # SVG has 72 units per inch
        inner = (LEFT / width, BOTTOM / height, 1 - (LEFT + RIGHT) / width, 1 - (BOTTOM + TOP) / height)
        axes = figure.add_axes(inner)
        axes.spines[:].set_visible(False)
        axes.grid(axis="y", color=RULE, linewidth=1)
        axes.set_axisbelow(True)
        axes.margins(x=0, y=0.08)
        axes.tick_params(length=0, colors=MUTED)
        axes.tick_params(axis="x", pad=6)
        axes.tick_params(axis="y", pad=LEFT)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, min_n_ticks=3, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True))
    return figure, axes


def _line(axes: Axes, curve: Series, color: str, *, width: float) -> None:
    """Draw a curve; with few points each gets a dot, so that a lone evaluation shows too."""
    curve = thin(curve)
    values = np.where(np.isfinite(curve.values), curve.values, np.nan)
    dots = "o" if curve.finite <= 1 else ""
    axes.plot(curve.epochs, values, color=color, linewidth=width, marker=dots, markersize=5, clip_on=False)


def _frame(axes: Axes, *curves: Series) -> None:
    """Epochs from 0 to the last, at least one, so that the plots of a run have the same axis."""
    last = max((float(curve.epochs.max()) for curve in curves if curve.finite), default=0.0)
    axes.set_xlim(0, max(last, 1))


def _scale(axes: Axes, *curves: Series) -> None:
    """Losses that span more than two decades are drawn on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    values = np.concatenate([curve.values[np.isfinite(curve.values)] for curve in curves])
    if values.min() <= 0 or values.max() / values.min() <= 100:
        return
    axes.set_yscale("log")
    few = values.max() / values.min() < 1000
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3) if few else (1,), numticks=5))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _svg(figure: Figure, axes: Axes, *, name: str, label: str) -> str:
    """The figure as an element to put into the page: no XML prologue, no fixed size, ids of its own."""
    for text in axes.get_yticklabels():
        text.set_horizontalalignment("left")
    buffer = io.StringIO()
    with _style():
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', rf'\1 role="img" aria-label="{label}"', svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\1{name}-", svg)
    svg = re.sub(r"font-(size|family): [^;\"]*;? ?", "", svg)
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, variable)
    return re.sub(r"\s*(<!--.*?-->)?\n\s*", "\n", svg, flags=re.DOTALL).strip()
