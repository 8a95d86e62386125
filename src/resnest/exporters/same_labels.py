"""Agreement of two networks' labels, except for ties within the tolerance.

same_label({"logits": ours}, {"logits": theirs})          # (N,) bool
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from resnest.exporters.gate import TOLERANCE
from resnest.exporters.layers import Arrays


def same_label(expected: Arrays, got: Arrays) -> NDArray[np.bool_]:
    """Whether the top-1 class, for a segmenter at every pixel, is the same or tied within the tolerance."""
    ours, theirs = expected["logits"], got["logits"]  # (N, K), or (N, K, H, W)
    chosen = np.take_along_axis(ours, theirs.argmax(1, keepdims=True), 1)[:, 0]  # what we give to their best class
    largest = np.abs(ours).reshape(len(ours), -1).max(1)  # (N,)
    short = (ours.max(1) - chosen).reshape(len(ours), -1).max(1)
    allowed: NDArray[np.bool_] = short <= 2 * TOLERANCE * largest
    return allowed & np.isfinite(theirs).reshape(len(ours), -1).all(1)


def same_labels(expected: Arrays, got: Arrays) -> NDArray[np.bool_]:
    """Whether the same classes score 50 % or more, except those within the tolerance of it."""
    ours, theirs = expected["logits"], got["logits"]  # (N, K)
    border = np.abs(ours) <= TOLERANCE * np.abs(ours).max(-1, keepdims=True)
    same: NDArray[np.bool_] = (((ours >= 0) == (theirs >= 0)) | border).all(-1) & np.isfinite(theirs).all(-1)
    return same
