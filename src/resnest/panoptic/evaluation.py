"""Evaluation of a panoptic network: panoptic quality of each class, and its scorer.

result.figures["pq"], result.headline, result.class_pq, result.segments
for i in result.worst(12): result.indices[i], result.worst_maps[i].segments
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from resnest.figures import Figure, percent
from resnest.inference.evaluation import Evaluation, Indices, WorstPictures, lowest
from resnest.panoptic.card import PanopticCard
from resnest.panoptic.data import PanopticSamples
from resnest.panoptic.metrics import KINDS, Counts, Floats, PanopticMetrics
from resnest.panoptic.result import PanopticMap

GROUPS = dict(zip(KINDS, ("all", "things", "stuff"), strict=True))  # of classes, by what stands behind a key
QUALITIES = (
    Figure("pq", "PQ", "panoptic quality: SQ times RQ, of each class; the mean of the classes"),
    Figure("sq", "SQ", "segmentation quality: mean IoU of the matched segments"),
    Figure("rq", "RQ", "recognition quality: F1 of recognised segments"),
)
FIGURES = tuple(
    Figure(quality.key + suffix, f"{quality.title} of {group}" if suffix else quality.title, quality.meaning)
    for suffix, group in GROUPS.items()
    for quality in QUALITIES
)


@dataclass(kw_only=True)
class PanopticEvaluation(Evaluation):
    """Evaluation of a panoptic network."""

    table = FIGURES
    report = "resnest.panoptic.report:panoptic_report"
    counted = "segments"

    class_pq: Floats  # (K,), NaN for a class that is neither there nor found
    class_sq: Floats  # (K,)
    class_rq: Floats  # (K,)
    segments: Counts  # (K,) true ones, without crowds
    things: int  # the first so many classes
    image_pq: Floats  # (N,) of each picture alone
    worst_maps: dict[int, PanopticMap]  # by position: what was found in the worst pictures

    @property
    def headline(self) -> str:
        things, stuff = (percent(self.figures[f"pq_{kind}"]) for kind in ("things", "stuff"))
        return f"{self.titled('pq')} (things {things}, stuff {stuff})"

    def lines(self) -> list[str]:
        classes = (slice(None), slice(self.things), slice(self.things, None))
        lines = [" " * 6 + "".join(f"{quality.title:>9}" for quality in QUALITIES)]
        for (suffix, group), part in zip(GROUPS.items(), classes, strict=True):
            values = "".join(f"{percent(self.figures[quality.key + suffix]):>9}" for quality in QUALITIES)
            lines.append(f"{group:<6}{values}   mean over {np.isfinite(self.class_pq[part]).sum()} classes")
        return lines

    @property
    def class_figures(self) -> tuple[Floats, Indices]:
        """PQ and number of true segments of each class."""
        return self.class_pq, self.segments

    def details(self) -> dict[str, Any]:
        qualities = {"class_sq": self.by_class(self.class_sq), "class_rq": self.by_class(self.class_rq)}
        return {"segments": int(self.segments.sum()), **qualities}

    def worst(self, most: int) -> Indices:
        """Positions of the pictures with the lowest PQ, worst first; none without a mistake."""
        return lowest(self.image_pq, most)

    @property
    def qualities(self) -> Floats:
        """(N,) PQ of each picture alone."""
        return self.image_pq


class PanopticScorer:
    """Scorer of a panoptic network: panoptic quality of every class, and of each picture.

    Counts segments that match; sums of IoU do not depend on the order of pictures.
    """

    def __init__(self, samples: PanopticSamples, card: PanopticCard) -> None:
        self.class_names, self.things = card.class_names, card.things
        self.metrics = PanopticMetrics(len(card.class_names), card.things)
        self.worst = WorstPictures()

    def update(self, index: int, result: PanopticMap, truth: PanopticMap) -> None:
        alone = PanopticMetrics(len(self.class_names), self.things)
        alone.update(result, truth)
        self.metrics.merge(alone)
        self.worst.add(index, alone.compute().figures["pq"], result)

    def merge(self, other: PanopticScorer) -> None:
        self.metrics.merge(other.metrics)
        self.worst.merge(other.worst)

    def result(self) -> PanopticEvaluation:
        result = self.metrics.compute()
        return PanopticEvaluation(
            figures=result.figures,
            class_names=self.class_names,
            indices=self.worst.indices,
            class_pq=result.class_pq,
            class_sq=result.class_sq,
            class_rq=result.class_rq,
            segments=self.metrics.matched + self.metrics.missed,
            things=self.things,
            image_pq=self.worst.qualities,
            worst_maps=self.worst.results,
        )
