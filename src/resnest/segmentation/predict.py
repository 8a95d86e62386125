"""Prediction of a segmenter: logits to the class of every pixel. No torch.

predict(engine, card, [Prepared("x.jpg", card.preprocess(image), image.size)])         # [LabelMap(...)]
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from resnest.errors import ResnestError
from resnest.runtime.engines.engine import Engine, Prepared, Shape, Views, stack_pixels
from resnest.segmentation.card import SegmentationCard
from resnest.segmentation.result import LabelMap
from resnest.segmentation.sliding_window import Map, label_map, logits_of, segment

FACTORS = (0.1, 8.0)  # of a segmenter's own size, that a view may have


def predict(
    engine: Engine, card: SegmentationCard, images: Sequence[Prepared], views: Views | None = None
) -> list[LabelMap]:
    """A class for every pixel of the picture, for images of one padded shape."""
    if views is not None:
        return [_augmented(engine, card, image, views) for image in images]
    logits = logits_of(partial(_logits, engine), stack_pixels(images), card.preprocess)
    return [
        label_map(
            one,
            inner=card.preprocess.scaled_size(*image.size)[::-1],
            size=image.size,
            classes=card.classes,
            name=image.name,
        )
        for image, one in zip(images, logits, strict=True)
    ]


def _logits(engine: Engine, images: Map) -> Map:
    """(N, 3, H, W) -> (N, K, H, W), without the padding of the engine's input."""
    logits: Map = engine(images, np.array([images.shape[2:]] * len(images)))["logits"]
    return logits


def _augmented(engine: Engine, card: SegmentationCard, image: Prepared, views: Views) -> LabelMap:
    assert image.image is not None
    return segment(partial(_logits, engine), image.image, card.preprocess, card.classes, image.name, views)


def check_views(views: Views) -> None:
    """Raises ResnestError for scales that are no factors."""
    if not all(FACTORS[0] <= scale <= FACTORS[1] for scale in views.scales):
        raise ResnestError("the scales of a segmenter are factors of its own size, such as 0.75,1,1.25")


def takes(card: SegmentationCard) -> Shape:
    """Inputs of exported files: images of the card's size, or of any."""
    return None, 3, *(card.preprocess.canvas or (None, None))


def gives(card: SegmentationCard) -> dict[str, Shape]:
    """Outputs of exported files."""
    return {"logits": (None, len(card.class_names), *(card.preprocess.canvas or (None, None)))}
