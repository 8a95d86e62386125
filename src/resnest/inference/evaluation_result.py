"""The result of an evaluation: figures, and predictions for each image. Each task adds its own fields.

result.figures, result.headline, result.worst(24)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from resnest.errors import ResnestError
from resnest.figures import Figure, percent

MAX_BAD_SHARE = 0.05  # of a data set's images: more than that is a broken data set, not a few broken files (P11)
Indices = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(kw_only=True)
class Evaluation:
    """The result of an evaluation, for any task."""

    table: ClassVar[tuple[Figure, ...]]  # of the task's figures
    report: ClassVar[str]  # (evaluation, samples, history) -> Report, as "package.module:NAME"
    counted: ClassVar[str] = "images"  # what `per_class` counts

    figures: dict[str, float]  # fractions; loss in nats
    class_names: tuple[str, ...]
    indices: Indices  # (N,) into the samples
    bad: list[tuple[str, str]] = field(default_factory=list)  # unusable files: key, reason
    seconds: float = 0.0

    @property
    def count(self) -> int:
        return len(self.indices)

    @property
    def headline(self) -> str:
        """The monitored figure, as text."""
        raise NotImplementedError

    def lines(self) -> list[str]:
        """All figures except the loss, as lines of text."""
        raise NotImplementedError

    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % intervals of the figures that are proportions of the images."""
        return {}

    @property
    def class_figures(self) -> tuple[Floats, Indices]:
        """The main figure of each class, NaN where undefined, and its count, both (K,)."""
        raise NotImplementedError

    def per_class(self) -> list[tuple[str, float | None, int]]:
        """Name, figure and number of images, or objects, of each class; None where undefined."""
        return [
            (name, None if math.isnan(figure) else float(figure), int(count))
            for name, figure, count in zip(self.class_names, *self.class_figures, strict=True)
        ]

    def titled(self, key: str) -> str:
        """A figure with its title: "mIoU 68.50%"."""
        [title] = (figure.title for figure in self.table if figure.key == key)
        return f"{title} {percent(self.figures[key])}"

    def details(self) -> dict[str, Any]:
        """For JSON: further figures of each class, and what was counted. May contain NaN."""
        return {}

    def by_class(self, values: Iterable[float]) -> dict[str, float]:
        """Values of the classes, (K,), by class name."""
        return dict(zip(self.class_names, map(float, values), strict=True))

    def worst(self, most: int) -> Indices:
        """Positions of the worst errors, worst first."""
        raise NotImplementedError


def check_bad_share(bad: int, total: int, last: tuple[str, str] | None) -> None:
    """Raises ResnestError if too many files of a data set are unusable."""
    if bad > MAX_BAD_SHARE * total and last:
        raise ResnestError(
            f"{bad} of {total} images cannot be used, more than {MAX_BAD_SHARE:.0%}; the last one is {last[0]}:"
            f" {last[1]}. `resnest doctor --data` lists them all"
        )
