"""What `resnest predict` runs in tests, whatever model it is told: an engine without weights, and a card, of each task.

use(monkeypatch, "detection")             # a "cat" in the left quarter of every picture
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from resnest.classification.card import ClassificationCard
from resnest.detection.card import DetectionCard, DetectionPreprocess, DetectorSpec
from resnest.inference.predicting import Predictor
from resnest.panoptic.card import PanopticCard, PanopticSpec
from resnest.runtime.card import ModelCard
from resnest.runtime.predictor import ImagePredictor
from resnest.runtime.preprocess import Preprocess
from resnest.runtime.tiles import Tiles
from resnest.segmentation.card import SegmentationCard, SegmentationPreprocess
from resnest.segmentation.spec import SegmenterSpec
from resnest.spec import Spec

NAMES = ("cat", "sky", "sea")
SPEC = Spec(depths=(1, 1, 1, 1))
OBJECTS = DetectionPreprocess(short=64, long=128, mean=(0, 0, 0), std=(1, 1, 1))
IDS = (17, 187, 155)
CARDS: dict[str, ModelCard] = {
    "classification": ClassificationCard(
        architecture="resnest14", spec=SPEC, class_names=NAMES, preprocess=Preprocess(size=24)
    ),
    "detection": DetectionCard(
        architecture="resnest14",
        spec=SPEC,
        class_names=NAMES,
        preprocess=OBJECTS,
        detector=DetectorSpec(masks=True),
        category_ids=IDS,
    ),
    "segmentation": SegmentationCard(
        architecture="resnest14",
        spec=SPEC,
        class_names=NAMES,
        preprocess=SegmentationPreprocess(mean=(0, 0, 0), std=(1, 1, 1)),
        segmenter=SegmenterSpec(),
        category_ids=IDS,
    ),
    "panoptic": PanopticCard(
        architecture="resnest14",
        spec=SPEC,
        class_names=NAMES,
        preprocess=OBJECTS,
        detector=DetectorSpec(masks=True),
        panoptic=PanopticSpec(stuff_area=100),
        things=1,
        category_ids=IDS,
    ),
}


class StandIn:
    """An engine for every task: an object of class 0 in the left quarter; logits are the image."""

    name = "stand-in"

    def __init__(self, task: str) -> None:
        self.task = task

    def __call__(self, images: NDArray[np.float32], sizes: Any = None) -> dict[str, NDArray[Any]]:
        if self.task == "classification":
            return {"logits": images.mean((2, 3))}
        if self.task == "segmentation":
            return {"logits": images * 10}
        boxes = np.zeros((len(images), 1, 4), np.float32)
        boxes[:, 0, 2:] = sizes[:, ::-1] * [0.25, 1]
        found = {
            "boxes": boxes,
            "scores": np.ones((len(images), 1), np.float32),
            "labels": np.zeros((len(images), 1), np.int64),
            "masks": np.ones((len(images), 1, 28, 28), np.float32),
        }
        return found if self.task == "detection" else {**found, "semantic": images * 10}


def use(monkeypatch: pytest.MonkeyPatch, task: str, card: ModelCard | None = None) -> None:
    """Let `resnest predict` run the task's engine."""

    def opened(self: Predictor, reference: str, *, batch_size: int, tiles: Tiles | None = None, **_: object) -> None:
        ImagePredictor.__init__(self, StandIn(task), card or CARDS[task], batch_size=batch_size, tiles=tiles)

    monkeypatch.setattr(Predictor, "__init__", opened)
