"""Prediction of a detector: arrays to objects in pixels of the picture. No torch, except in test-time augmentation.

predict(engine, card, [Prepared("x.jpg", card.preprocess(image), image.size)])         # [Detections(...)]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.detection.card import DetectionCard, DetectionPreprocess
from resnest.detection.result import Detections, RawDetections
from resnest.errors import ResnestError
from resnest.runtime.engines.exported import Engine, Prepared, Shape, Views, stack_pixels

PIXELS = (32, 4000)  # that the short side of a view may have


def predict(
    engine: Engine, card: DetectionCard, images: Sequence[Prepared], views: Views | None = None
) -> list[Detections]:
    """All detections, for images of one padded shape.

    Args:
        views: test-time augmentation, image by image; the engine must hold the network itself.

    Raises:
        ResnestError: views, and an engine that runs an exported file.
    """
    if views is None:
        raw = raw_detections(engine(stack_pixels(images), unpadded_sizes(card.preprocess, images)))
        return [_result(raw, index, card, image) for index, image in enumerate(images)]
    return [_result(_augmented(engine, card, image, views), 0, card, image) for image in images]


def raw_detections(outputs: Mapping[str, NDArray[Any]]) -> RawDetections:
    """An engine's outputs by field."""
    return RawDetections(outputs["boxes"], outputs["scores"], outputs["labels"].astype(np.int64), outputs.get("masks"))


def unpadded_sizes(preprocess: DetectionPreprocess, images: Sequence[Prepared]) -> NDArray[np.int64]:
    """Height and width without padding, (N, 2)."""
    return np.array([preprocess.scaled_size(*image.size)[::-1] for image in images])


def _result(raw: RawDetections, index: int, card: DetectionCard, image: Prepared) -> Detections:
    return Detections.of(raw, index, name=image.name, size=image.size, preprocess=card.preprocess, classes=card.classes)


def _augmented(engine: Engine, card: DetectionCard, image: Prepared, views: Views) -> RawDetections:
    net = getattr(engine, "net", None)
    if net is None or image.image is None:
        raise ResnestError("several views of an image need the model itself: an exported file takes one size")
    from resnest.detection.tta import predict_augmented

    scales = [int(scale) for scale in views.scales] or [card.preprocess.short]
    return predict_augmented(net, image.image, card.preprocess, scales=scales, flip=views.flip)


def check_views(views: Views) -> None:
    """Raises ResnestError for scales that are no short side in pixels."""
    if not all(PIXELS[0] <= scale <= PIXELS[1] and float(scale).is_integer() for scale in views.scales):
        raise ResnestError("the scales of a detector are pixels of the short side, such as 640,800")


def takes(card: DetectionCard) -> Shape:
    """Inputs of exported files: one image of the card's size; of one-stage detectors any number, and any size."""
    return _batch(card), card.in_chans, *(card.preprocess.canvas or (None, None))


def gives(card: DetectionCard) -> dict[str, Shape]:
    """Outputs of exported files."""
    count = _batch(card)
    masks: dict[str, Shape] = {"masks": (count, None, None, None)} if card.detector.masks else {}
    return {"boxes": (count, None, 4), "scores": (count, None), "labels": (count, None), **masks}


def _batch(card: DetectionCard) -> int | None:
    return None if card.detector.free_size else 1
