"""History of a run from metrics.jsonl: series to plot, and the best evaluation.

    history = read_history(lines, "top1")
    history.best, history.when        # {"epoch": 12.0, "top1": 0.974, ...} or None, ", epoch 12 of 20"

A resumed run writes some steps twice: the later line wins. A value that is missing or not a number is NaN here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
