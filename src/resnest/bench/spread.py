"""Medians, and how far they can be trusted when a machine does other work too.

    low, high, coverage = sign_interval(ratios)

Nothing is assumed of how times are distributed: they are skewed, with rare long ones. The interval is the sign test's
(Conover, Practical Nonparametric Statistics, section 3.2): between two values in order of size, symmetrical from the
ends, the median lies with a probability that the binomial distribution gives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median, quantiles
from typing import NamedTuple


class Interval(NamedTuple):
    """Where the median lies, with the probability `coverage`."""

    low: float
    high: float
    coverage: float

    def apart(self, other: Interval) -> bool:
        return self.low > other.high or self.high < other.low


def sign_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """The narrowest interval with at least that coverage; of fewer than six values the whole range, with less.

    >>> sign_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
    Interval(low=2.0, high=8.0, coverage=0.9609375)
    """
    ordered, count = sorted(values), len(values)
    k, outside = 1, 2 / 2**count  # the ends are the k-th values; the median lies beyond them with this probability
    while k < count // 2:
        more = outside + 2 * math.comb(count, k) / 2**count
        if 1 - more < level:
            break
        k, outside = k + 1, more
    return Interval(ordered[k - 1], ordered[count - k], 1 - outside)


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Lower and upper; both are the value where there is one alone.

    >>> quartiles([1.0, 2.0, 3.0, 4.0, 5.0])
    (2.0, 4.0)
    """
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, high


def paired(base: Sequence[float], own: Sequence[float]) -> tuple[float, Interval]:
    """How many times faster than the base: median over rounds of base / own, and its interval.

    >>> paired([2.0, 4.0, 6.0], [1.0, 2.0, 2.0])[0]
    2.0
    """
    ratios = [theirs / ours for theirs, ours in zip(base, own, strict=True)]
    return median(ratios), sign_interval(ratios)
