"""Milliseconds of a prediction, of several models in turn, and the size of each.

speeds(["runs/a", "runs/b"], pictures)          # [Speed(ms=21.3, ratio=1.0), Speed(ms=11.0, ratio=0.52)]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from PIL import Image

from resnest.inference.predicting import Predictor
from resnest.runtime.engines.choosing import is_exported

ROUNDS = 7  # odd, so that the median is a measurement
PICTURES = 4  # of a round


@dataclass(frozen=True)
class Speed:
    """Of one picture alone, with its preparation, without decoding its file."""

    ms: float  # median
    ratio: float  # median of the ratios to the first model in the same round


def speeds(
    models: Sequence[str],
    pictures: Sequence[Image.Image],
    *,
    device: str = "auto",
    on_round: Callable[[], None] = lambda: None,
) -> list[Speed]:
    """Each model predicts the same pictures, one by one; the models take turns, and begin in turn."""
    predictors = [Predictor(model, engine="auto" if is_exported(model) else "torch", device=device) for model in models]
    rounds: list[list[float]] = []
    for number in range(ROUNDS + 1):
        seconds = [0.0] * len(models)
        for place in range(len(models)):
            turn = (place + number) % len(models)
            started = time.perf_counter()
            for picture in pictures[:PICTURES]:
                predictors[turn](picture)
            seconds[turn] = (time.perf_counter() - started) / len(pictures[:PICTURES])
        if number:  # the first one warms up
            rounds.append(seconds)
        on_round()
    return [
        Speed(1000 * median(row[index] for row in rounds), median(row[index] / row[0] for row in rounds))
        for index in range(len(models))
    ]


def megabytes(model: str) -> float | None:
    """Of the file of weights, or of all files of an exported model; None of a name."""
    path = Path(model)
    if path.is_dir() and (weights := path / "model.safetensors").is_file():
        path = weights
    if path.is_file():
        data = path.with_suffix(".bin") if path.suffix == ".xml" else None  # OpenVINO's weights
        return (path.stat().st_size + (data.stat().st_size if data and data.is_file() else 0)) / 1e6
    return None
