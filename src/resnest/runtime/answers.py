"""What an engine's output means, task by task: one function each, from prepared images of one shape to results.

answer = ANSWERS[card.task]
answer(engine, card, ["x.jpg"], [Prepared(card.preprocess(image), image.size)])        # [Classification(...)]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from resnest.runtime.card import ModelCard
from resnest.runtime.classification import Classification, MultiLabel, sigmoid, softmax
from resnest.runtime.detections import Classes, Detections
from resnest.runtime.engines.kinds import DetectorEngine, Engine, PanopticEngine, SegmenterEngine
from resnest.runtime.label_map import LabelMap
from resnest.runtime.panoptic_map import PanopticMap
from resnest.runtime.panoptic_merge import panoptic_map
from resnest.runtime.preprocess import DetectionPreprocess
from resnest.runtime.results import Result
from resnest.runtime.segmenting import label_map, logits_of

RESULTS: dict[str, type[Result]] = {
    "classification": Classification,
    "detection": Detections,
    "segmentation": LabelMap,
    "panoptic": PanopticMap,
}


class Prepared(NamedTuple):
    """One image."""

    pixels: NDArray[np.float32]  # (3, H, W), as the network gets it
    size: tuple[int, int]  # width, height of the picture


def classify(engine: Engine, card: ModelCard, names: list[str], images: list[Prepared]) -> list[Result]:
    """Scores of every class."""
    logits = engine(_stacked(images))
    kind, scores = (MultiLabel, sigmoid(logits)) if card.multi_label else (Classification, softmax(logits))
    return [kind(name, card.class_names, row) for name, row in zip(names, scores, strict=True)]


def detect(engine: DetectorEngine, card: ModelCard, names: list[str], images: list[Prepared]) -> list[Result]:
    """Objects, in pixels of the picture."""
    preprocess = card.detector_input
    found = engine(_stacked(images), _inner_sizes(preprocess, images))
    classes = Classes(card.class_names, card.category_ids)
    return [
        Detections.of(found, place, name=name, size=images[place].size, preprocess=preprocess, classes=classes)
        for place, name in enumerate(names)
    ]


def segment(engine: SegmenterEngine, card: ModelCard, names: list[str], images: list[Prepared]) -> list[Result]:
    """A class for every pixel of the picture."""
    preprocess, classes = card.segmenter_input, card.pixel_classes
    looks = logits_of(engine, _stacked(images), preprocess)
    return [
        label_map(logits, inner=preprocess.scaled_size(*image.size)[::-1], size=image.size, classes=classes, name=name)
        for name, image, logits in zip(names, images, looks, strict=True)
    ]


def share_out(engine: PanopticEngine, card: ModelCard, names: list[str], images: list[Prepared]) -> list[Result]:
    """A segment for every pixel of the picture: an object, or a region of stuff."""
    assert card.panoptic is not None
    preprocess = card.detector_input
    found = engine(_stacked(images), _inner_sizes(preprocess, images))
    return [
        panoptic_map(
            found,
            place,
            name=name,
            size=images[place].size,
            preprocess=preprocess,
            classes=card.panoptic_classes,
            spec=card.panoptic,
        )
        for place, name in enumerate(names)
    ]


def _inner_sizes(preprocess: DetectionPreprocess, images: list[Prepared]) -> NDArray[np.int64]:
    """Height and width without padding, (N, 2)."""
    return np.array([preprocess.scaled_size(*image.size)[::-1] for image in images])


def _stacked(images: list[Prepared]) -> NDArray[np.float32]:
    return np.stack([image.pixels for image in images])


ANSWERS: dict[str, Callable[[Any, ModelCard, list[str], list[Prepared]], list[Result]]] = {
    "classification": classify,
    "detection": detect,
    "segmentation": segment,
    "panoptic": share_out,
}
