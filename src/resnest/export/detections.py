"""Whether an exported detector finds what the network finds: objects are matched, then compared (promise P15).

    compare(..., measure=detection_differences, agree=partial(same_objects, threshold=0.05), tolerances=...)

Objects that score about as much may change places, and one at the border of what is kept may come or go: neither is
a difference.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from resnest.export.layers import Arrays
from resnest.inference.detection_outcome import overlap

DETECTION_TOLERANCES = {"boxes": 0.01, "scores": 1e-3, "masks": 1e-2}  # 1 - IoU, score, probability of a pixel (P15)
BORDER = 1e-3  # a score this near the lowest that can be kept


def detection_differences(expected: Arrays, got: Arrays) -> dict[str, float]:
    """The largest difference between matched objects: 1 - IoU of boxes, of scores, of mask probabilities."""
    apart = dict.fromkeys((name for name in DETECTION_TOLERANCES if name in expected), 0.0)
    if not all(np.isfinite(got[name]).all() for name in apart):
        return dict.fromkeys(apart, float("inf"))
    for image in range(len(expected["scores"])):
        for ours, theirs, shared in _pairs(expected, got, image):
            apart["boxes"] = max(apart["boxes"], 1 - shared)
            for name in apart.keys() - {"boxes"}:
                distance = np.abs(expected[name][image, ours] - got[name][image, theirs]).max()
                apart[name] = max(apart[name], float(distance))
    return apart


def same_objects(expected: Arrays, got: Arrays, *, threshold: float) -> NDArray[np.bool_]:
    """Of each image, whether every object has its counterpart on the other side, those at the border aside: (N,).

    Args:
        threshold: the score above which the detector keeps objects.
    """
    same = []
    for image, (ours, theirs) in enumerate(zip(expected["scores"], got["scores"], strict=True)):
        pairs = _pairs(expected, got, image)
        found = [{pair[side] for pair in pairs} for side in (0, 1)]
        same.append(
            all(
                place in found[side] or scores[place] <= _lowest(ours, theirs, threshold) + BORDER
                for side, scores in ((0, ours), (1, theirs))
                for place in np.flatnonzero(scores > 0)
            )
        )
    return np.array(same, bool)


def _lowest(ours: NDArray[np.float32], theirs: NDArray[np.float32], threshold: float) -> float:
    """The lowest score that both can keep: where a list is full, that of its last object."""
    return max(threshold, *(float(scores.min()) for scores in (ours, theirs)))


def _pairs(expected: Arrays, got: Arrays, image: int) -> list[tuple[int, int, float]]:
    """Objects of one image that belong together, and how far they overlap (IoU).

    They are of one class, and have the nearest score among those with the same box.
    """
    ours, theirs = (np.flatnonzero(side["scores"][image] > 0) for side in (expected, got))
    no_crowd = np.zeros(len(theirs), bool)
    overlaps = overlap(expected["boxes"][image, ours], got["boxes"][image, theirs], no_crowd)  # (ours, theirs)
    alike = overlaps >= 1 - DETECTION_TOLERANCES["boxes"]
    alike &= expected["labels"][image, ours][:, None] == got["labels"][image, theirs]
    apart = np.abs(expected["scores"][image, ours][:, None] - got["scores"][image, theirs])
    pairs = []
    for row, one in enumerate(ours):
        if alike[row].any():
            column = int(np.where(alike[row], apart[row], np.inf).argmin())
            alike[:, column] = False  # it is taken
            pairs.append((int(one), int(theirs[column]), float(overlaps[row, column])))
    return pairs
