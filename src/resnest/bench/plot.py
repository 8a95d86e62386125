"""Plot of published top-1 over measured latency: the paper's first figure.

    draw(Path("accuracy-latency.svg"), table)

A family's networks are joined by a line, in the order of their latency; each point is a network at its published crop.
The title has device, engine and batch: what holds for one need not hold for another.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnest.bench.environment import facts
from resnest.bench.published import FAMILIES, Figure, figure_of
from resnest.bench.table import Case, Table
from resnest.errors import ResnestError, parameter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# legible on white and on dark pages, told apart without red and green
COLOURS = {"ResNeSt": "#2f6fdb", "EfficientNet": "#d97706", "ResNet-D": "#6b7280", "ConvNeXt": "#a855a8"}
# where labels stand from their points, so that those of neighbouring families do not meet
BESIDE: dict[str, dict[str, Any]] = {
    "ResNeSt": {"xytext": (5, -5), "ha": "left", "va": "top"},
    "EfficientNet": {"xytext": (-5, 4), "ha": "right"},
    "ResNet-D": {"xytext": (4, -5), "ha": "left", "va": "top"},
    "ConvNeXt": {"xytext": (3, 8), "ha": "right"},
}
INK = "#6b7280"


@dataclass(frozen=True)
class Point:
    """A point of the plot: milliseconds per image, percent."""

    figure: Figure
    ms: float
    top1: float


def points(table: Table) -> list[Point]:
    """The fastest case of every network with a published accuracy, at its published crop.

    Raises:
        ResnestError: there are none, or cases of several batches.
    """
    best: dict[str, tuple[Case, Figure]] = {}
    for case in table.cases:
        figure = figure_of(case.model)
        if figure is None or figure.size != case.size or case.precision == "int8":
            continue  # int8 has an accuracy of its own
        if case.model not in best or case.median < best[case.model][0].median:
            best[case.model] = (case, figure)
    if not best:
        raise ResnestError("nothing to plot: none of these networks has a published accuracy at the size measured")
    if len({case.batch for case, _ in best.values()}) > 1:
        raise ResnestError(f"a plot takes one batch: measure with {parameter('batches', [1])}")
    return [Point(figure, 1e3 * case.median / case.batch, figure.top1) for case, figure in best.values()]


def need_matplotlib() -> None:
    """Raises ResnestError if it is not installed, before anything is measured."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ResnestError("a plot needs matplotlib: pip install 'resnest[bench]'")


def draw(path: Path, table: Table) -> None:
    """Write the picture; its format is the suffix's, such as .svg or .png.

    Raises:
        ResnestError: nothing to plot, a suffix that matplotlib does not know, a folder that cannot be written.
    """
    from matplotlib.figure import Figure as Canvas

    found = points(table)
    with constant_names():
        canvas = Canvas(figsize=(7.2, 4.6), layout="constrained")
        axes = canvas.add_subplot()
        for family in FAMILIES:
            own = sorted((point for point in found if point.figure.family == family), key=lambda point: point.ms)
            _draw_family(axes, family, own)
        _dress(axes, table, found)
        save(canvas, path)


def save(canvas: Any, path: Path) -> None:
    """Raises ResnestError if the file cannot be written, or its format is unknown to matplotlib."""
    told = {"Date": None} if path.suffix == ".svg" else {}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        canvas.savefig(path, transparent=path.suffix == ".svg", dpi=150, metadata=told)
    except (OSError, ValueError) as error:
        raise ResnestError(f"{path} cannot be written: {error}") from None


def constant_names() -> Any:
    """Makes identifiers inside an SVG reproducible."""
    import matplotlib

    return matplotlib.rc_context({"svg.hashsalt": "resnest"})


def _draw_family(axes: Axes, family: str, own: list[Point]) -> None:
    if not own:
        return
    colour, ours = COLOURS[family], family == "ResNeSt"
    xs, ys = [point.ms for point in own], [point.top1 for point in own]
    axes.plot(xs, ys, color=colour, linewidth=2.2 if ours else 1.3, marker="o", markersize=6 if ours else 4)
    for place, point in enumerate(own):
        label = f"{family} {point.figure.label}" if place == 0 else point.figure.label
        weight = "bold" if ours else "normal"
        how: dict[str, Any] = {"textcoords": "offset points", "color": colour, "fontweight": weight, **BESIDE[family]}
        axes.annotate(label, (point.ms, point.top1), fontsize=9 if place == 0 else 8, **how)


def _dress(axes: Axes, table: Table, found: list[Point]) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set_xscale("log")
    axes.margins(y=0.08)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    least, most = min(point.ms for point in found), max(point.ms for point in found)
    axes.set_xlim(least / 2.6, most * 1.4)  # room for the name beside the first point
    axes.set_xticks(list(_ticks(least / 2.6, most * 1.4)))
    axes.set_title(_title(table), color=INK, fontsize=9, loc="left")
    axes.set_xlabel("milliseconds an image, median, logarithmic", color=INK)
    axes.set_ylabel("ImageNet top-1 as published, %", color=INK)
    axes.tick_params(colors=INK, which="both")
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(INK)


def _ticks(low: float, high: float) -> Iterator[float]:
    for power in range(-2, 6):
        for digit in (1, 2, 5):
            if low <= digit * 10**power <= high:
                yield digit * 10**power


def _title(table: Table) -> str:
    told = facts(table.environment)
    engines = sorted({case.engine for case in table.cases})
    precisions = sorted({case.precision for case in table.cases})
    device = told.get("gpu") or f"{told.get('cpu', '?')}, {told.get('threads', '?')} threads"
    batch = table.cases[0].batch
    return f"{device}; {', '.join(engines)}, {', '.join(precisions)}; batch {batch}; each network at its published crop"
