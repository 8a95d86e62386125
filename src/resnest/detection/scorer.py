"""Scores of a detector: COCO's average precision and recall, and each image's mistakes."""

from __future__ import annotations

from resnest.detection.card import DetectionCard
from resnest.detection.data import DetectionSamples, Objects
from resnest.detection.evaluation import DetectionEvaluation, collect_detections
from resnest.detection.result import Detections


class DetectionScorer:
    """Keeps every object found, by the image's number."""

    def __init__(self, samples: DetectionSamples, card: DetectionCard) -> None:
        self.class_names, self.max_detections = card.class_names, card.detector.max_detections
        self.found: dict[int, Detections] = {}
        self.truths: dict[int, Objects] = {}

    def update(self, index: int, result: Detections, truth: Objects) -> None:
        self.found[index], self.truths[index] = result, truth

    def merge(self, other: DetectionScorer) -> None:
        self.found |= other.found
        self.truths |= other.truths

    def result(self) -> DetectionEvaluation:
        return collect_detections(
            self.found, self.truths, self.class_names, max_detections=self.max_detections, bad=[], seconds=0.0
        )
