"""Prediction of a classifier: logits to labels. No torch.

predict(engine, card, [Prepared("x.jpg", card.preprocess(image), image.size)])         # [Classification(...)]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from resnest.classification.card import ClassificationCard
from resnest.classification.result import Classification, MultiLabel, sigmoid, softmax
from resnest.errors import ResnestError
from resnest.runtime.engines.exported import Engine, Prepared, Shape, Views, stack_pixels


def predict(
    engine: Engine, card: ClassificationCard, images: Sequence[Prepared], views: Views | None = None
) -> list[Classification]:
    """Scores of every class, for images of one shape."""
    logits = engine(stack_pixels(images), np.array([image.pixels.shape[1:] for image in images]))["logits"]
    kind, scores = (MultiLabel, sigmoid(logits)) if card.multi_label else (Classification, softmax(logits))
    return [
        kind(image.name, card.class_names, row, logits=raw)
        for image, row, raw in zip(images, scores, logits, strict=True)
    ]


def check_views(views: Views) -> None:
    """Raises ResnestError: classifiers have no test-time augmentation."""
    raise ResnestError("several scales and mirrored views are for detectors and segmenters, and this is a classifier")


def takes(card: ClassificationCard) -> Shape:
    """Inputs of exported files."""
    return None, card.in_chans, card.preprocess.size, card.preprocess.size


def gives(card: ClassificationCard) -> dict[str, Shape]:
    """Outputs of exported files."""
    return {"logits": (None, len(card.class_names))}
