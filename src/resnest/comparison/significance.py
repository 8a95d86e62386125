"""Whether a difference between two evaluations of the same pictures is more than chance.

    drawn = draws(evaluation.units, 1000, seed=0)           # places of pictures, (1000, n)
    difference = compare_evaluations(first, second, drawn, level=0.95)
    difference.value, difference.low, difference.high, difference.p, difference.resolved

Intervals: paired bootstrap, percentiles of the difference over samples of the pictures drawn with replacement, the same
for both models (Efron and Tibshirani 1993, chapter 13). p: where a picture is right or wrong, McNemar's exact test on
the pictures of which one model is right (McNemar 1947); otherwise that of the bootstrap.

What this says is about pictures: how the figures would differ on other pictures of the kind. Another seed of training
gives another model, which is more chance that no comparison of two runs can see.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resnest.inference.evaluation import Evaluation

CHUNK = 50  # resamples between two reports of progress
LEAST = 10  # pictures: samples of fewer are too much alike for a bootstrap

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Difference:
    """The second model's main figure minus the first's; fractions."""

    value: float
    low: float
    high: float
    p: float  # two-sided
    test: str  # "McNemar" or "bootstrap"
    level: float  # of the interval and, as 1 - level, of the test
    pictures: int
    better: Indices  # positions of pictures with which the second model does better
    worse: Indices

    @property
    def resolved(self) -> bool:
        """Whether the difference is more than chance at this level; never with fewer than `LEAST` pictures."""
        return self.p < 1 - self.level and self.pictures >= LEAST


def draws(units: int, resamples: int, seed: int) -> Indices:
    """Places of pictures drawn with replacement, (resamples, units)."""
    return np.random.default_rng(seed).integers(units, size=(resamples, units))


def resampled_figures(evaluation: Evaluation, drawn: Indices, on_step: Callable[[int], None]) -> Floats:
    """The main figure of each resample, (B,); `on_step` gets the number that are done."""
    parts = []
    for start in range(0, len(drawn), CHUNK):
        parts.append(evaluation.resampled(drawn[start : start + CHUNK]))
        on_step(len(parts[-1]))
    return np.concatenate(parts)


def compare_evaluations(
    first: Evaluation, second: Evaluation, figures: tuple[Floats, Floats], *, level: float
) -> Difference:
    """The difference between two evaluations of the same pictures.

    Args:
        figures: of both on the same resamples, (B,) each.
        level: of the interval, 0.95 for one comparison.
    """
    key = first.table[0].key
    differences = figures[1] - figures[0]
    known = differences[np.isfinite(differences)]  # NaN where a resample has nothing to measure
    tail = (1 - level) / 2
    low, high = np.quantile(known, (tail, 1 - tail)) if len(known) else (math.nan, math.nan)
    if first.right is not None and second.right is not None:
        test, p = "McNemar", mcnemar(int((second.right & ~first.right).sum()), int((first.right & ~second.right).sum()))
    else:
        test, p = "bootstrap", bootstrap_p(known)
    change = second.qualities - first.qualities
    return Difference(
        second.figures[key] - first.figures[key],
        float(low),
        float(high),
        p,
        test,
        level,
        first.units,
        *_changed(change),
    )


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p of McNemar's test: of the pictures of which one model is right, half by chance.

    >>> mcnemar(5, 5), round(mcnemar(0, 10), 5)
    (1.0, 0.00195)
    """
    total, most = gained + lost, max(gained, lost)
    if total == 0:
        return 1.0
    logs = [
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) - total * math.log(2)
        for k in range(most, total + 1)
    ]
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))


def bootstrap_p(differences: Floats) -> float:
    """Two-sided p: twice the share of resamples on the other side of 0; never below what so many can show."""
    if not len(differences):
        return 1.0
    beyond = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return min(1.0, 2 * (beyond + 1) / (len(differences) + 1))


def _changed(change: Floats) -> tuple[Indices, Indices]:
    """Positions of pictures with another quality, the largest change first: better, worse."""
    order = np.argsort(-np.abs(np.nan_to_num(change)), kind="stable")
    return order[change[order] > 0], order[change[order] < 0]
