"""Whether an exported detector finds what the network finds: objects are matched, then compared (promise P15).

    compare(..., measure=detection_differences, agree=same_objects, tolerances=DETECTION_TOLERANCES)

Objects that score about as much may change places, and one at the border of what is kept may come or go: neither is
a difference.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from resnest.export.layers import Arrays

DETECTION_TOLERANCES = {"boxes": 0.01, "scores": 1e-3, "masks": 1e-2}  # 1 - IoU, score, probability of a pixel (P15)
BORDER = 1e-3  # a score this near the lowest that is kept


def detection_differences(expected: Arrays, got: Arrays) -> dict[str, float]:
    """The largest difference between matched objects: 1 - IoU of boxes, of scores, of mask probabilities."""
    apart = dict.fromkeys((name for name in DETECTION_TOLERANCES if name in expected), 0.0)
    if not all(np.isfinite(got[name]).all() for name in apart):
        return dict.fromkeys(apart, float("inf"))
    for image in range(len(expected["scores"])):
        for ours, theirs in _pairs(expected, got, image):
            apart["boxes"] = max(
                apart["boxes"], 1 - _overlap(expected["boxes"][image, ours], got["boxes"][image, theirs])
            )
            for name in apart.keys() - {"boxes"}:
                distance = np.abs(expected[name][image, ours] - got[name][image, theirs]).max()
                apart[name] = max(apart[name], float(distance))
    return apart


def same_objects(expected: Arrays, got: Arrays) -> NDArray[np.bool_]:
    """Of each image, whether every object has its counterpart on the other side, those at the border aside: (N,)."""
    same = []
    for image, (ours, theirs) in enumerate(zip(expected["scores"], got["scores"], strict=True)):
        pairs = _pairs(expected, got, image)
        found = [{pair[side] for pair in pairs} for side in (0, 1)]
        same.append(
            all(
                place in found[side] or scores[place] <= _lowest(ours, theirs) + BORDER
                for side, scores in ((0, ours), (1, theirs))
                for place in np.flatnonzero(scores > 0)
            )
        )
    return np.array(same, bool)


def _lowest(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """The lowest score that both keep: where the list is full that of its last object."""
    return max(float(scores[scores > 0].min(initial=1.0)) for scores in (ours, theirs))


def _pairs(expected: Arrays, got: Arrays, image: int) -> list[tuple[int, int]]:
    """Objects of one image that belong together: of one class, the nearest score among those with the same box."""
    ours, theirs = (np.flatnonzero(side["scores"][image] > 0) for side in (expected, got))
    free = list(theirs)
    pairs = []
    for one in ours:
        like = [
            other
            for other in free
            if expected["labels"][image, one] == got["labels"][image, other]
            and _overlap(expected["boxes"][image, one], got["boxes"][image, other]) >= 1 - DETECTION_TOLERANCES["boxes"]
        ]
        if like:
            score = expected["scores"][image, one]
            other = min(like, key=lambda place: abs(float(got["scores"][image, place] - score)))
            free.remove(other)
            pairs.append((int(one), int(other)))
    return pairs


def _overlap(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """IoU of two boxes."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(sides.clip(min=0)))
    whole = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - shared
    return shared / whole if whole > 0 else 1.0
