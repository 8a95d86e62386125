"""Panoptic quality: recognition and segmentation quality of segments (Kirillov et al., arXiv 1801.00868, section 4).

    metrics = PanopticMetrics(num_classes=133, things=80)
    metrics.update(found, truth)                  # two PanopticMaps of one picture
    metrics.compute().figures["pq"]               # fraction 0..1

A predicted and a true segment of the same class match if their IoU is above 0.5, which at most one pair of each segment
can reach. SQ is the mean IoU of the matches, RQ their F1, PQ = SQ * RQ, computed per class; `pq` is the mean over the
classes that occur, `pq_things` and `pq_stuff` over those of each kind.

Void and crowds are treated as in the authors' panopticapi, whose figures these are: pixels that are void in the truth
belong to no union; an unmatched crowd is no false negative; an unmatched segment of which more than half is in void or
in crowds of its class is no false positive. (panopticapi uses one crowd per class; COCO has no more.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resnest.panoptic.result import PanopticMap, Segment

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
KINDS = ("", "_things", "_stuff")  # of classes that figures are the mean of


@dataclass(frozen=True)
class PanopticResult:
    """Fractions; NaN for classes that do not occur."""

    figures: dict[str, float]  # pq, sq, rq; with _things and _stuff behind them too
    class_pq: Floats  # (K,)
    class_sq: Floats  # (K,)
    class_rq: Floats  # (K,)


class PanopticMetrics:
    """Counts, and the IoU of every match, so that the result depends on neither order nor partition of pictures."""

    def __init__(self, num_classes: int, things: int) -> None:
        self.things = things  # the first so many classes
        self.ious: list[list[float]] = [[] for _ in range(num_classes)]  # of pairs, by class
        self.false = np.zeros(num_classes, np.int64)  # found segments that there are not
        self.missed = np.zeros(num_classes, np.int64)

    def update(self, predicted: PanopticMap, truth: PanopticMap) -> None:
        """Add one picture. Both maps have one size, and segments for all their ids except 0."""
        shared = _shared(truth, predicted)  # (1 + T, 1 + F) pixels, void first
        true_label, label = _labels(truth.segments), _labels(predicted.segments)
        crowd = np.array([segment.crowd for segment in truth.segments], bool)
        same = true_label[:, None] == label  # (T, F)
        area, void = shared[:, 1:].sum(0), shared[0, 1:]  # (F,)
        both = shared[1:, 1:]
        union = shared[1:].sum(1)[:, None] + area - both - void
        pairs = same & ~crowd[:, None] & (2 * both > union)
        for row, column in zip(*np.nonzero(pairs), strict=True):
            self.ious[label[column]].append(float(both[row, column] / union[row, column]))
        forgiven = void + (both * (same & crowd[:, None])).sum(0)
        np.add.at(self.false, label[~pairs.any(0) & (2 * forgiven <= area)], 1)
        np.add.at(self.missed, true_label[~pairs.any(1) & ~crowd], 1)

    def merge(self, other: PanopticMetrics) -> None:
        """Add the state of another process's metrics."""
        for mine, theirs in zip(self.ious, other.ious, strict=True):
            mine += theirs
        self.false += other.false
        self.missed += other.missed

    @property
    def matched(self) -> Counts:
        """Matches of each class, (K,)."""
        return np.array([len(ious) for ious in self.ious], np.int64)

    @property
    def counts(self) -> Floats:
        """What PQ is the ratio of, (K, 2): sum of the matches' IoU; matches and half of what is missed or false."""
        total = [math.fsum(ious) for ious in self.ious]  # exact, so that the order of the pictures does not matter
        return np.stack([total, self.matched + (self.false + self.missed) / 2], 1)

    def compute(self) -> PanopticResult:
        (total, weight), pairs = self.counts.T, self.matched
        occurs = weight > 0
        quality = {
            "pq": _ratio(total, weight, occurs),
            "sq": _ratio(total, np.maximum(pairs, 1), occurs),
            "rq": _ratio(pairs, weight, occurs),
        }
        parts = (slice(None), slice(self.things), slice(self.things, None))
        figures = {
            f"{name}{kind}": _mean(values[part])
            for kind, part in zip(KINDS, parts, strict=True)
            for name, values in quality.items()
        }
        return PanopticResult(figures, *quality.values())


def mean_quality(counts: Floats) -> float:
    """PQ of `PanopticMetrics.counts`, (K, 2): the mean over the classes that occur."""
    return _mean(_ratio(counts[:, 0], counts[:, 1], counts[:, 1] > 0))


def _shared(truth: PanopticMap, predicted: PanopticMap) -> Counts:
    """Intersection of each true with each predicted segment, in pixels: (1 + T, 1 + F), void first."""
    rows, columns = _segment_indices(truth), _segment_indices(predicted)
    count = 1 + len(predicted.segments)
    flat = np.bincount((rows * count + columns).reshape(-1), minlength=(1 + len(truth.segments)) * count)
    return flat.reshape(-1, count)


def _segment_indices(panoptic: PanopticMap) -> Counts:
    """(H, W): 0 for void, n for the n-th segment."""
    ids = np.array([0, *(segment.id for segment in panoptic.segments)], np.int64)
    order = np.argsort(ids, kind="stable")
    indices = order[np.minimum(np.searchsorted(ids[order], panoptic.ids), len(ids) - 1)]
    assert np.array_equal(ids[indices], panoptic.ids), f"{panoptic.name}: ids without a segment"
    return indices


def _labels(segments: Sequence[Segment]) -> Counts:
    return np.array([segment.label for segment in segments], np.int64)


def _ratio(above: NDArray[np.generic], below: NDArray[np.generic], occurs: NDArray[np.bool_]) -> Floats:
    """NaN for classes that do not occur."""
    ratios = np.full(len(occurs), np.nan)
    np.divide(above, below, out=ratios, where=occurs, dtype=np.float64)
    return ratios


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return math.fsum(known.tolist()) / len(known) if len(known) else math.nan
