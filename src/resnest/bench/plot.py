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

from resnest.bench.table import Case, Table, facts
from resnest.errors import ResnestError, parameter
from resnest.files import WRITTEN
from resnest.spec import PUBLISHED, find_spec

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# --- Published ImageNet top-1 of the networks in the paper's first figure, each with its crop ---
# The peers are those of the paper's time, trained on ImageNet-1k alone: EfficientNet with AutoAugment (the weights that
# the paper compares with), ResNet-D as GluonCV trained it, and ConvNeXt as the one that came later. Newer recipes lift
# all of them: timm has a ResNet-50-D with 81.4 %.

# timm's results-imagenet.csv as of commit 0173a139 of huggingface/pytorch-image-models: model, top1, img_size
_TIMM = "timm results/results-imagenet.csv, {}"
_CONVNEXT = "ConvNeXt repository, README, ImageNet-1K trained models"  # and arXiv 2201.03545, table 1


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Published top-1 and crop of a network."""

    family: str
    label: str
    size: int  # evaluation crop, pixels
    top1: float  # percent
    source: str


def _efficientnet(level: int, size: int, top1: float) -> tuple[str, Figure]:
    name = f"tf_efficientnet_b{level}"
    source = _TIMM.format(f"{name}.aa_in1k")
    return f"timm:{name}", Figure(family="EfficientNet", label=f"B{level}", size=size, top1=top1, source=source)


def _resnet_d(depth: int, top1: float) -> tuple[str, Figure]:
    source = _TIMM.format(f"resnet{depth}d.gluon_in1k")
    return f"timm:resnet{depth}d", Figure(family="ResNet-D", label=str(depth), size=224, top1=top1, source=source)


def _convnext(name: str, top1: float) -> tuple[str, Figure]:
    label = name[0].upper()
    return f"timm:convnext_{name}", Figure(family="ConvNeXt", label=label, size=224, top1=top1, source=_CONVNEXT)


def _resnest(depth: int) -> tuple[str, Figure]:
    name = f"resnest{depth}"
    net = PUBLISHED[name]
    source = "GluonCV model zoo" if depth < 50 else "ResNeSt repository, README"
    return name, Figure(family="ResNeSt", label=str(depth), size=net.crop, top1=net.top1, source=source)


FIGURES: dict[str, Figure] = dict(
    [
        *map(_resnest, (14, 26, 50, 101, 200, 269)),
        _efficientnet(0, 224, 76.834),
        _efficientnet(1, 240, 78.830),
        _efficientnet(2, 260, 80.084),
        _efficientnet(3, 300, 81.644),
        _efficientnet(4, 380, 83.018),
        _efficientnet(5, 456, 83.688),
        _efficientnet(6, 528, 84.116),
        _efficientnet(7, 600, 84.414),
        _resnet_d(50, 79.078),
        _resnet_d(101, 80.426),
        _resnet_d(152, 80.476),
        _convnext("tiny", 82.1),
        _convnext("small", 83.1),
        _convnext("base", 83.8),
    ]
)
FAMILIES: dict[str, list[str]] = {
    family: [name for name, figure in FIGURES.items() if figure.family == family]
    for family in dict.fromkeys(figure.family for figure in FIGURES.values())
}


def figure_of(model: str) -> Figure | None:
    """The published figure of a network under any of its names; None for an unknown one."""
    if model in FIGURES:
        return FIGURES[model]
    try:
        return FIGURES.get(find_spec(model.removeprefix("timm:"))[1])
    except ResnestError:
        return None


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

    shown = points(table)
    with constant_names():
        canvas = Canvas(figsize=(7.2, 4.6), layout="constrained")
        axes = canvas.add_subplot()
        for family in FAMILIES:
            own = sorted((point for point in shown if point.figure.family == family), key=lambda point: point.ms)
            _draw_family(axes, family, own)
        _dress(axes, table, shown)
        save(canvas, path)


MARKS: dict[str, dict[str, Any]] = {  # that they may be replaced; a date would differ each time
    ".svg": {"Date": None, "Creator": WRITTEN},
    ".png": {"Software": WRITTEN},
    ".pdf": {"Creator": WRITTEN},
}


def save(canvas: Any, path: Path) -> None:
    """Raises ResnestError if the file cannot be written, or its format is unknown to matplotlib."""
    metadata = MARKS.get(path.suffix.lower(), {})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        canvas.savefig(path, transparent=path.suffix == ".svg", dpi=150, metadata=metadata)
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
    for index, point in enumerate(own):
        label = f"{family} {point.figure.label}" if index == 0 else point.figure.label
        weight = "bold" if ours else "normal"
        how: dict[str, Any] = {"textcoords": "offset points", "color": colour, "fontweight": weight, **BESIDE[family]}
        axes.annotate(label, (point.ms, point.top1), fontsize=9 if index == 0 else 8, **how)


def _dress(axes: Axes, table: Table, shown: list[Point]) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set_xscale("log")
    axes.margins(y=0.08)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    least, most = min(point.ms for point in shown), max(point.ms for point in shown)
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
    environment = facts(table.environment)
    engines = sorted({case.engine for case in table.cases})
    precisions = sorted({case.precision for case in table.cases})
    device = environment.get("gpu") or f"{environment.get('cpu', '?')}, {environment.get('threads', '?')} threads"
    batch = table.cases[0].batch
    return f"{device}; {', '.join(engines)}, {', '.join(precisions)}; batch {batch}; each network at its published crop"
