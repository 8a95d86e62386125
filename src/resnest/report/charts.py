"""Line charts of a run as inline SVG, in the colours and the font of the page, for light and dark mode.

    loss_chart(series(history.train, "loss"), series(history.evals, "loss"))     # "<svg ...>", or "" without data

Horizontal hairlines, no frame, numbers flush with the title above.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from resnest.report.page import render

WIDTH, HEIGHT = 290, 205  # user units: about the pixels that a chart gets in a row of three, and on a phone
WIDE, HIGH = 480, 300  # of a chart that stands alone
LEFT, RIGHT, BOTTOM, TOP = 40, 6, 26, 8  # margins; equal in all charts, so that their axes line up
MARGIN = 0.08  # of the values' span, above and below them
MAX_POINTS = 400  # more than the pixels of the axis only makes the file bigger
MAX_LINES = 10  # --line-0 to --line-9 of the page's style
ACCENT, MUTED = "accent", "muted"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """A curve in a colour of the page's style."""

    curve: Series
    colour: str = ACCENT
    width: float = 2.0


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high`, with ticks."""

    low: float
    high: float
    ticks: Sequence[float]
    log: bool = False

    def fraction(self, values: Floats) -> Floats:
        """Relative position of values: 0 at the low end, 1 at the high end."""
        low, high = self.low, self.high
        if self.log:
            values, low, high = np.log(values).astype(np.float64), math.log(low), math.log(high)
        fractions: Floats = (values - low) / (high - low)
        return fractions


def loss_chart(train: Series, validation: Series) -> Markup:
    """Training loss (muted) and validation loss (accent) over epochs."""
    lines = [Line(train, MUTED, 1.0), Line(validation)]
    return _over_epochs(lines, _loss_axis(_finite(lines)), "Training and validation loss over epochs")


def fraction_chart(main: Series, other: Series, *, label: str) -> Markup:
    """Two fractions such as top-1 (accent, its best point marked) and top-5 (muted) in percent over epochs."""
    if not main.finite:
        return Markup()
    lines = [Line(other.scaled(100), MUTED, 1.0), Line(main.scaled(100))]
    low, high = _padded(_finite(lines))
    best = int(np.nanargmax(np.where(np.isfinite(main.values), main.values, np.nan)))
    dot = Series(epochs=main.epochs[[best]], values=100 * main.values[[best]])
    return _over_epochs([*lines, Line(dot)], _linear(max(low, 0), min(high, 100)), label, last=_last_epoch([main]))


def folds_chart(curves: Sequence[Series], *, label: str) -> Markup:
    """A fraction in percent over epochs, a curve for each fold; in one colour if there are more than MAX_LINES."""
    colours = [f"line-{k}" if len(curves) <= MAX_LINES else ACCENT for k in range(len(curves))]
    lines = [Line(curve.scaled(100), colour, 1.5) for curve, colour in zip(curves, colours, strict=True)]
    low, high = _padded(_finite(lines))
    return _over_epochs(lines, _linear(max(low, 0), min(high, 100)), label)


def rate_chart(rate: Series) -> Markup:
    """The learning rate over epochs."""
    values = _finite([Line(rate)])
    return _over_epochs([Line(rate)], _linear(0.0, _padded(values)[1]), "Learning rate over epochs")


def precision_chart(curves: Floats, *, each: bool) -> Markup:
    """Precision-recall in percent: the mean (accent) if there are several curves, and `each` of at most ten.

    A curve, (K, R), is given at recalls from 0 to 1 in even steps. Where its precision has come down to 0 it has ended.
    """
    if not len(curves):
        return Markup()
    values = 100 * np.clip(np.nan_to_num(curves), 0, 1)
    recall = np.linspace(0, 100, values.shape[1])
    ended = np.where(values > 0, values, np.nan)
    lines = [Line(Series(epochs=recall, values=line), f"line-{k}", 1.5) for k, line in enumerate(ended if each else ())]
    if len(values) > 1 or not each:
        lines.append(Line(Series(epochs=recall, values=values.mean(axis=0)), ACCENT, 2.5))
    axis = Axis(0, 100, (0, 25, 50, 75, 100))
    return _chart(lines, axis, axis, "Precision over recall, in percent", width=WIDE, height=HIGH)


def percent_chart(lines: Sequence[Line], *, label: str, last: float | None = None) -> Markup:
    """Fractions in percent over a fraction in percent, or with `last` over whole numbers from 1 to that."""
    y = Axis(0, 100, (0, 25, 50, 75, 100))
    x = y if last is None else Axis(1, max(last, 2), nice_ticks(1, max(last, 2), intervals=5, integers=True))
    across = 100.0 if last is None else 1.0
    curves = [
        Line(Series(epochs=across * line.curve.epochs, values=100 * line.curve.values), line.colour, line.width)
        for line in lines
    ]
    return _chart(curves, x, y, label) if any(line.curve.finite for line in curves) else Markup()


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


def nice_ticks(low: float, high: float, *, intervals: int = 4, integers: bool = False) -> list[float]:
    """Round numbers from `low` to `high`: steps that cover it in at most so many intervals, or the next finer ones
    where that gives fewer than three ticks.

    >>> nice_ticks(0, 1), nice_ticks(0, 12, integers=True), nice_ticks(52, 97)
    ([0.0, 0.25, 0.5, 0.75, 1.0], [0.0, 5.0, 10.0], [60.0, 70.0, 80.0, 90.0])
    """
    smallest = (high - low) / (intervals + 1)
    if not 1e-300 < smallest < 1e300:  # a span that steps cannot divide
        return [low]
    power = 10.0 ** math.floor(math.log10(smallest))
    finer: list[float] = []
    for step in (factor * power for factor in (1, 2, 2.5, 5, 10, 20, 25, 50, 100)):
        if integers and step % 1:
            continue
        least, most = low / step + 1e-9, high / step - 1e-9
        ticks = [k * step for k in range(math.ceil(least - 2e-9), math.floor(most + 2e-9) + 1)]
        if math.ceil(most) - math.floor(least) <= intervals:
            break
        finer = ticks
    return ticks if len(ticks) >= 3 or not finer else finer


def _over_epochs(lines: Sequence[Line], y: Axis | None, label: str, *, last: float | None = None) -> Markup:
    """Epochs from 0 to the last, at least one, so that all charts of a run have the same axis."""
    if y is None:
        return Markup()
    last = max(_last_epoch(line.curve for line in lines) if last is None else last, 1)
    return _chart(lines, Axis(0, last, nice_ticks(0, last, intervals=5, integers=True)), y, label)


def _last_epoch(curves: Iterable[Series]) -> float:
    return max((float(curve.epochs.max()) for curve in curves if curve.finite), default=0.0)


def _finite(lines: Sequence[Line]) -> Floats:
    values: Floats = np.concatenate([line.curve.values for line in lines])
    return values[np.isfinite(values)]


def _padded(values: Floats) -> tuple[float, float]:
    """The values' range with a margin; for equal values a twentieth to each side."""
    if not len(values):
        return math.nan, math.nan
    low, high = float(values.min()), float(values.max())
    room = MARGIN * (high - low) or abs(high) / 20 or 0.05
    return low - room, high + room


def _linear(low: float, high: float) -> Axis | None:
    return None if math.isnan(high) else Axis(low, high, nice_ticks(low, high))


def _loss_axis(values: Floats) -> Axis | None:
    """Logarithmic where losses span more than two decades."""
    low, high = _padded(values)
    if not len(values) or values.min() <= 0 or values.max() / values.min() <= 100:
        return _linear(low, high)
    decades = math.log10(values.max() / values.min())
    low, high = (float(end * 10.0 ** (sign * MARGIN * decades))
                 for end, sign in ((values.min(), -1), (values.max(), 1)))  # fmt: skip
    stride = math.ceil(decades / 5)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [10.0**power * factor for power in powers if power % stride == 0
             for factor in ((1, 3) if decades < 3 else (1,))]  # fmt: skip
    return Axis(low, high, [tick for tick in ticks if low <= tick <= high], log=True)


def _chart(lines: Sequence[Line], x: Axis, y: Axis, label: str, *, width: int = WIDTH, height: int = HEIGHT) -> Markup:
    def across(values: Sequence[float] | Floats) -> list[float]:
        return _rounded(LEFT + (width - LEFT - RIGHT) * x.fraction(np.asarray(values, np.float64)))

    def down(values: Sequence[float] | Floats) -> list[float]:
        return _rounded(height - BOTTOM - (height - BOTTOM - TOP) * y.fraction(np.asarray(values, np.float64)))

    curves = [(line, thin(line.curve)) for line in lines]
    shapes = [(line, list(zip(across(curve.epochs), down(curve.values), strict=True))) for line, curve in curves]
    return render(
        "chart.html",
        width=width,
        height=height,
        left=LEFT,
        right=width - RIGHT,
        rows=zip(down(y.ticks), map(_number, y.ticks), strict=True),
        columns=zip(across(x.ticks), map(_number, x.ticks), strict=True),
        lines=[(line, _path(points)) for line, points in shapes if line.curve.finite > 1],
        dots=[(line, point) for line, points in shapes if line.curve.finite == 1 for point in points if _drawn(point)],
        label=label,
    )


def _rounded(positions: Floats) -> list[float]:
    rounded: list[float] = positions.round(1).tolist()
    return rounded


def _number(value: float) -> str:
    return f"{value:g}"


def _drawn(point: tuple[float, float]) -> bool:
    return math.isfinite(point[1])


def _path(points: Iterable[tuple[float, float]]) -> str:
    """SVG's path through the points, with gaps where values are not finite."""
    parts, new = [], True
    for point in points:
        if _drawn(point):
            parts.append(("M{:g},{:g}h0" if new else "L{:g},{:g}").format(*point))  # h0: a lone point is a dot
        new = not _drawn(point)
    return "".join(parts)


# --- History of a run from metrics.jsonl: series to plot, and the best evaluation ---
# A resumed run writes some steps twice: the later line wins. A value that is missing or not a number is NaN here.


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve: values over epochs, in the order of the steps."""

    epochs: NDArray[np.float64]
    values: NDArray[np.float64]

    @property
    def finite(self) -> int:
        """The number of values that can be drawn."""
        return int(np.isfinite(self.values).sum())

    def scaled(self, factor: float) -> Series:
        """The same curve in another unit."""
        return Series(epochs=self.epochs, values=self.values * factor)


@dataclass(frozen=True, kw_only=True)
class History:
    """The lines of metrics.jsonl, one per step and kind."""

    train: Sequence[Mapping[str, Any]]
    evals: Sequence[Mapping[str, Any]]
    monitor: str  # the figure that decides which evaluation is best

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The evaluation with the highest monitored figure; of equal ones the earliest."""
        known = [line for line in self.evals if math.isfinite(number(line, self.monitor))]
        return max(known, key=lambda line: number(line, self.monitor)) if known else None

    @property
    def last_epoch(self) -> float:
        """The epoch of the latest evaluation, NaN without one."""
        return number(self.evals[-1], "epoch") if self.evals else math.nan

    @property
    def when(self) -> str:
        """The epoch of the best evaluation: ", epoch 2 of 3"."""
        best = self.best
        return f", epoch {number(best, 'epoch'):g} of {self.last_epoch:g}" if best else ""


def read_history(metrics: Iterable[Mapping[str, Any]], monitor: str) -> History:
    """Sort the lines by kind and step; lines without a step or an epoch are left out."""
    kinds: dict[str, dict[float, Mapping[str, Any]]] = {"train": {}, "eval": {}}
    for line in metrics:
        step, epoch = number(line, "step"), number(line, "epoch")
        if line.get("kind") in kinds and math.isfinite(step) and math.isfinite(epoch):
            kinds[line["kind"]][step] = line
    train, evals = ([lines[step] for step in sorted(lines)] for lines in kinds.values())
    return History(train=train, evals=evals, monitor=monitor)


def series(lines: Sequence[Mapping[str, Any]], key: str) -> Series:
    """The curve of one key; empty if no line has it."""
    having = [line for line in lines if key in line]
    return Series(
        epochs=np.array([number(line, "epoch") for line in having], dtype=np.float64),
        values=np.array([number(line, key) for line in having], dtype=np.float64),
    )


def number(line: Mapping[str, Any], key: str) -> float:
    """A value as a float. JSON writers differ for NaN: null, the bare word and its string all occur."""
    try:
        return float(line.get(key, math.nan))
    except (TypeError, ValueError):
        return math.nan
