"""Pasting a mask from its box into the picture, as detectron2 does.

    paste(probabilities, box, width=640, height=480)        # (28, 28), (x1, y1, x2, y2) -> RLE

A pixel of the picture takes the map's value at its centre: (x + 0.5 - x1) / (x2 - x1) * 28 - 0.5, between four
values bilinearly, zeros around the map; from 0.5 on it belongs to the mask (detectron2, layers/mask_ops.py, which is
torch's grid_sample with align_corners=False). Both axes are apart from each other, so two small matrices do it. Outside
its box a map gives less than 0.5 everywhere, so that only the pixels of the box are computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from resnest.runtime.rle import RLE, encode

THRESHOLD = 0.5  # of the probability


def paste(probabilities: NDArray[np.float32], box: Sequence[float], *, width: int, height: int) -> RLE:
    """The mask of one object in a picture of this size; empty for a box without area."""
    x1, y1, x2, y2 = map(float, box)
    left, top = max(0, math.floor(x1)), max(0, math.floor(y1))
    right, bottom = min(width, math.ceil(x2)), min(height, math.ceil(y2))
    inner = np.zeros((max(0, bottom - top), max(0, right - left)), bool)
    if inner.size and x2 > x1 and y2 > y1:
        inner = resample(probabilities, (x1, y1, x2, y2), (left, top, right, bottom)) >= THRESHOLD
    return encode(inner, left=left, top=top, size=(height, width))


def resample(
    probabilities: NDArray[np.float32], box: tuple[float, float, float, float], pixels: tuple[int, int, int, int]
) -> NDArray[np.float32]:
    """The map's values at the centres of these pixels (left, top, right, bottom; the last two not included)."""
    x1, y1, x2, y2 = box
    left, top, right, bottom = pixels
    rows = _weights(y1, y2, top, bottom, probabilities.shape[0])  # (h, 28)
    columns = _weights(x1, x2, left, right, probabilities.shape[1])  # (w, 28)
    return np.asarray(rows @ probabilities @ columns.T, np.float32)  # (h, w)


def _weights(start: float, end: float, first: int, last: int, count: int) -> NDArray[np.float32]:
    """Interpolation weights of `count` values over start..end at each pixel, (pixels, count)."""
    places = (np.arange(first, last) + 0.5 - start) / (end - start) * count - 0.5
    near = 1 - np.abs(places[:, None] - np.arange(count))
    weights: NDArray[np.float32] = np.maximum(near, 0).astype(np.float32)
    return weights
