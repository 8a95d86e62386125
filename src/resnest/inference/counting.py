"""Counting what is right in every picture, in one process or in several: of a segmenter, and of a panoptic detector.

counted = count_pictures(net, looks, PixelMetrics(11), count, total=101)
counted.metrics, counted.indices, counted.qualities, counted.kept
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from resnest.errors import ResnestError
from resnest.inference.outcome import Indices, check_bad_share
from resnest.runtime.decode import BadImage

KEPT = 12  # pictures of which what was found is kept, the worst ones: that of all would fill the memory


class Network(Protocol):
    """What is set to evaluate, and back afterwards."""

    training: bool

    def train(self, mode: bool = True) -> Any: ...


class Metrics(Protocol):
    """Counts that do not depend on how pictures are shared out."""

    def merge(self, other: Self) -> None: ...


M = TypeVar("M", bound=Metrics)


class Look(NamedTuple):
    """What one picture shows, and what it should."""

    number: int  # among the samples
    found: Any  # LabelMap, PanopticMap
    truth: Any


class Seen(NamedTuple):
    """One picture, afterwards."""

    quality: float  # of it alone; NaN if nothing in it counts
    found: Any | None  # none: it was not among the worst


@dataclass(frozen=True)
class Counted(Generic[M]):
    """All pictures of all processes together."""

    metrics: M
    seen: dict[int, Seen]  # by number
    bad: list[tuple[str, str]]  # unusable files: key, reason
    seconds: float

    @property
    def indices(self) -> Indices:
        """(N,) of the pictures that could be used. Raises ResnestError: there is none."""
        if not self.seen:
            raise ResnestError("not one image could be used")
        return np.array(sorted(self.seen), np.int64)

    @property
    def qualities(self) -> NDArray[np.float64]:
        """(N,) of each picture alone."""
        return np.array([self.seen[index].quality for index in self.indices.tolist()], np.float64)

    @property
    def kept(self) -> dict[int, Any]:
        """By position among the indices: what was found in the worst pictures."""
        found = {place: self.seen[index].found for place, index in enumerate(self.indices.tolist())}
        return {place: one for place, one in found.items() if one is not None}


def count_pictures(
    net: Network,
    looks: Iterable[Look | BadImage],
    metrics: M,
    count: Callable[[M, Look], float],
    *,
    total: int,
    on_batch: Callable[[int], None] = lambda seen: None,
    world_size: int = 1,
    gather: Callable[[Any], list[Any]] = lambda mine: [mine],
) -> Counted[M]:
    """Go through this process's pictures; processes exchange what they counted once, at the end.

    Args:
        net: evaluates while `looks` is gone through.
        count: adds a picture to the metrics, and says how good it is alone.
        total: pictures of all processes.

    Raises:
        ResnestError: more than 5 % of the images are unusable.
    """
    started = time.perf_counter()
    seen: dict[int, Seen] = {}
    bad: list[tuple[str, str]] = []
    was_training = net.training
    net.train(False)
    for look in looks:
        if isinstance(look, BadImage):
            bad.append((look.name, look.reason))
            if world_size == 1:  # else together, below: the others wait there
                check_bad_share(len(bad), total, bad[-1])
        else:
            seen[look.number] = Seen(count(metrics, look), look.found)
            _keep_worst(seen)
        on_batch(1)
    net.train(was_training)
    if world_size > 1:
        (metrics, seen, bad), *others = gather((metrics, seen, bad))
        for theirs, more, worse in others:
            metrics.merge(theirs)
            seen |= more
            bad += worse
        _keep_worst(seen)
        check_bad_share(len(bad), total, bad[-1] if bad else None)
    return Counted(metrics, seen, bad, time.perf_counter() - started)


def lowest(qualities: NDArray[np.float64], most: int) -> Indices:
    """Positions of the lowest, worst first; none without a mistake."""
    order = np.argsort(qualities, kind="stable")  # NaN comes last
    return order[qualities[order] < 1][:most].astype(np.int64)


def _keep_worst(seen: dict[int, Seen]) -> None:
    """Forget what was found in all pictures but the worst."""
    holding = [index for index, one in seen.items() if one.found is not None]
    holding.sort(key=lambda index: (math.isnan(seen[index].quality), seen[index].quality, index))
    for index in holding[KEPT:]:
        seen[index] = seen[index]._replace(found=None)
