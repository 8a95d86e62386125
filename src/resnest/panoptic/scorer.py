"""Scores of a panoptic detector: panoptic quality of every class, and each picture's own."""

from __future__ import annotations

from resnest.inference.worst import WorstPictures
from resnest.panoptic.card import PanopticCard
from resnest.panoptic.data import PanopticSamples
from resnest.panoptic.evaluation import PanopticEvaluation, collect_panoptic
from resnest.panoptic.metrics import PanopticMetrics
from resnest.panoptic.result import PanopticMap


class PanopticScorer:
    """Counts segments that match; sums of IoU do not depend on the order of pictures."""

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
        return collect_panoptic(self.metrics, self.worst, self.class_names)
