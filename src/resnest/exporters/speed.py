"""Timing of exported files in the installed engines, alternately, as the speed of a machine drifts.

times = measure({"onnxruntime float32": run, ...}, images)
times["onnxruntime float32"]                # median seconds per call
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

import numpy as np
from numpy.typing import NDArray

Run = Callable[[NDArray[np.float32]], object]
SECONDS = 4.0  # for all contenders together
LEAST_ROUNDS, MOST_ROUNDS = 3, 30


def measure(runs: Mapping[str, Run], images: NDArray[np.float32], *, seconds: float | None = None) -> dict[str, float]:
    """Median seconds per call with `images`, by name; the first round is a warm-up."""
    names, seconds = list(runs), SECONDS if seconds is None else seconds
    found: dict[str, list[float]] = {name: [] for name in names}
    started, rounds = time.perf_counter(), -1
    while rounds < LEAST_ROUNDS or (rounds < MOST_ROUNDS and time.perf_counter() - started < seconds):
        first = (rounds + 1) % len(names)
        for name in names[first:] + names[:first]:
            begin = time.perf_counter()
            runs[name](images)
            found[name].append(time.perf_counter() - begin)
        rounds += 1
    return {name: median(times[1:]) for name, times in found.items()}
