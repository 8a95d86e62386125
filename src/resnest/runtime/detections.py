"""What a detector gives: raw arrays from an engine, and what they mean for one image.

raw = engine(images, sizes)               # RawDetections of a batch
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class RawDetections(NamedTuple):
    """Of N images, D places each, best first; a place without an object has the score 0."""

    boxes: NDArray[np.float32]  # (N, D, 4) x1, y1, x2, y2 in pixels of the network's input
    scores: NDArray[np.float32]  # (N, D)
    labels: NDArray[np.int64]  # (N, D) class numbers from 0
    masks: NDArray[np.float32] | None = None  # (N, D, 28, 28) probabilities within the box
