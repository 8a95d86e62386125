"""What a detector learns from one image.

Target(boxes, labels, size=(480, 640), masks=None)
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Target(NamedTuple):
    """The objects of one image, in pixels of the image as the network gets it, before padding."""

    boxes: Tensor  # (M, 4) float32: x1, y1, x2, y2; all have an area
    labels: Tensor  # (M,) int64, from 0
    size: tuple[int, int]  # height, width
    masks: Tensor | None = None  # (M, height, width) bool, if the task wants them
    semantic: Tensor | None = None  # (height, width) uint8: 0 any thing, 1.. kinds of stuff, 255 does not count
