"""Prediction of a keypoint model: heatmaps of crops to points in pixels of each crop. No torch.

predict(engine, card, [Prepared("x.jpg", card.preprocess(crop), crop.size)])         # [Poses(...)], an object each
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from resnest.errors import ResnestError
from resnest.keypoints.card import KeypointCard
from resnest.keypoints.heatmaps import STRIDE, Maps, decode, flipped
from resnest.keypoints.result import Poses
from resnest.runtime.engines.exported import Engine, Prepared, Shape, Views, stack_pixels

OUTPUT = "logits"  # what a network's only output is called; heatmaps here


def predict(engine: Engine, card: KeypointCard, images: Sequence[Prepared], views: Views | None = None) -> list[Poses]:
    """One object in each crop.

    Args:
        views: `flip` averages heatmaps with those of the mirrored crop.
    """
    maps = heatmaps(engine, card, images, mirror=bool(views and views.flip))
    places, values = decode(maps, sigma=card.head.sigma, how=card.head.decode)
    return [_result(card, image, points, found) for image, points, found in zip(images, places, values, strict=True)]


def heatmaps(engine: Engine, card: KeypointCard, images: Sequence[Prepared], *, mirror: bool) -> Maps:
    """(N, K, h, w)."""
    pixels = stack_pixels(images)
    inner = np.array([card.preprocess.scaled_size(*image.size)[::-1] for image in images])
    maps: Maps = engine(pixels, inner)[OUTPUT]
    if not mirror:
        return maps
    turned = engine(np.ascontiguousarray(pixels[..., ::-1]), inner)[OUTPUT]
    return np.asarray((maps + flipped(turned, card.layout.mirrored)) / 2, np.float32)


def _result(card: KeypointCard, image: Prepared, points: NDArray[np.float64], values: NDArray[np.float32]) -> Poses:
    width, height = image.size
    wide, high = card.preprocess.scaled_size(width, height)
    return Poses(
        name=image.name,
        width=width,
        height=height,
        layout=card.layout,
        thing=card.thing,
        category_id=card.category_id,
        boxes=np.array([[0, 0, width, height]], np.float64),
        points=points[None] * (width / wide, height / high),
        point_scores=values[None],
        scores=np.array([pose_score(values, card.head.threshold)]),
    )


def pose_score(values: NDArray[np.float32], threshold: float) -> float:
    """The mean of the points' values that reach the threshold; 0 if none does (mmpose, CocoMetric: bbox_keypoint)."""
    sure = values[values > threshold]
    return min(float(sure.mean()), 1.0) if len(sure) else 0.0


def check_views(views: Views) -> None:
    """Raises ResnestError for scales."""
    if views.scales:
        raise ResnestError("a keypoint model has no scales: a crop has one size. Flips alone are views of it")


def takes(card: KeypointCard) -> Shape:
    """Inputs of exported files."""
    return None, card.in_chans, card.preprocess.height, card.preprocess.width


def gives(card: KeypointCard) -> dict[str, Shape]:
    """Outputs of exported files."""
    sides = (card.preprocess.height // STRIDE, card.preprocess.width // STRIDE)
    return {OUTPUT: (None, len(card.class_names), *sides)}
