"""Figures of merit: their names and titles, and fractions in percent.

    FIGURES = (Figure("miou", "mIoU", "intersection over union, mean of the classes"), ...)      # of a task, one table
    percent(0.12345)                    # "12.35%"

The report, the command line, the hub's card and the list of recipes all use a task's table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

Z95 = 1.959964  # normal quantile of a two-sided 95 % interval


@dataclass(frozen=True)
class Figure:
    """A figure of an evaluation, such as "top1"; training monitors the first in a task's table."""

    key: str  # in `Evaluation.figures`, metrics.jsonl and config.json
    title: str
    meaning: str
    higher_is_better: bool = True


LOSS = Figure("loss", "loss", "mean over the images, in nats", higher_is_better=False)


def percent(fraction: float, digits: int = 2, *, unit: str = "%", exact_ends: bool = False) -> str:
    """A fraction in percent; NaN is "-".

    Args:
        exact_ends: what is not everything never reads 100 %, nor what is something 0 %.

    >>> percent(0.5), percent(0.99999, 1), percent(0.99999, 1, exact_ends=True)
    ('50.00%', '100.0%', '99.9%')
    """
    if math.isnan(fraction):
        return "-"
    shown = 100 * fraction
    if exact_ends and 0 < fraction < 1:
        step = 10.0**-digits
        shown = min(max(round(shown, digits), step), 100 - step)
    return f"{shown:.{digits}f}{unit}"


def counted(count: int, one: str, several: str) -> str:
    """A number with the words for one or for several.

    >>> counted(1, "image is", "images are"), counted(1200, "image is", "images are")
    ('1 image is', '1,200 images are')
    """
    return f"{count:,} {one if count == 1 else several}"


def wilson_interval(successes: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion (Wilson, JASA 22, 1927).

    Unlike the textbook interval it stays within [0, 1], and has a width at both ends.

    >>> tuple(round(end, 3) for end in wilson_interval(97, 100))
    (0.915, 0.99)
    """
    if count == 0:
        return (0.0, 1.0)
    fraction, scale = successes / count, 1 + Z95**2 / count
    centre = fraction + Z95**2 / (2 * count)
    spread = Z95 * math.sqrt(fraction * (1 - fraction) / count + Z95**2 / (4 * count**2))
    low, high = (centre - spread) / scale, (centre + spread) / scale
    return (0.0 if fraction == 0 else low), (1.0 if fraction == 1 else high)  # exact there, where rounding would show
