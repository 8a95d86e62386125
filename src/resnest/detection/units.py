"""Boxes that are not corners in pixels: fractions, percent, corners in place of sizes and the reverse.

    misread = samples.objects.misread()
    misread.what, misread.certain       # "fractions of the image's width and height", True; None: nothing is suspicious

Readers take numbers as their format defines them. Tools that write others are recognised by all boxes together: what is
impossible as it is read and fits everywhere as something else. Outlines, which are in pixels, decide where there are
some.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from resnest.detection.segmentations import Segmentation, Segmentations
from resnest.runtime import rle

Boxes = NDArray[np.float64]  # (M, 4) x1, y1, x2, y2

TOLERANCE = 1.0  # pixels by which a box may exceed its image: some data sets count from 1
SEEN = 200  # outlines that boxes are compared with, spread over the data
NEAR, BETTER = 0.1, 4  # between outlines and their boxes, as a share of their size, and this much nearer than as read
OUTSIDE, INVERTED = 0.1, 0.3  # share of boxes that are impossible as they are read
NEARLY_ALL = 0.95
MANY, LARGE, SPREAD = 20, 300, 75  # boxes, and pixels a side of all images, from which on boxes up to (75, 75) to
# (100, 100) alone are suspicious


class Misread(NamedTuple):
    """What the boxes look like."""

    what: str
    certain: bool  # by their outlines, or because nothing else is possible

    @property
    def advice(self) -> str:
        return f"look like {self.what}: write x, y, width and height (VOC: corners) in pixels"

    def describe(self, count: int) -> str:
        return f"the {count:,} boxes {self.advice}"


def find_misread(boxes: Boxes, sizes: Boxes, outlines: Segmentations) -> Misread | None:
    """What boxes (M, 4) look like, in images of these sizes (M, 2), where they are not corners in pixels."""
    if not len(boxes):
        return None
    if _are_fractions(boxes, sizes):
        return Misread("fractions of the image's width and height", certain=True)
    shown = _outline_boxes(outlines, sizes)
    gap = _gap(boxes, shown) if shown else 0.0
    for misread, meant in _readings(boxes, sizes, outlined=bool(shown)):
        if not shown or _gap(meant, shown) < min(NEAR, gap / BETTER):
            return Misread(misread.what, misread.certain or bool(shown))
    return None


def _readings(boxes: Boxes, sizes: Boxes, *, outlined: bool) -> Iterator[tuple[Misread, Boxes]]:
    """Other readings that are possible for all boxes, with the corners that they mean.

    Where outlines do not decide, boxes must also be impossible or improbable as they are read.
    """
    scale = np.tile(sizes, 2)  # (M, 4) width, height, width, height
    if boxes.min() >= -1 and boxes.max() <= 100.5 and sizes.max() > 100:
        whole = boxes[:, 2:] * sizes / 100
        exact = bool((boxes[:, 2:] % 1).any(1).mean() > 0.5 and np.abs(whole - np.round(whole)).max() < 0.02)
        spread = len(boxes) >= MANY and sizes.min() >= LARGE and boxes[:, 2:].max(0).min() >= SPREAD
        if exact or spread or outlined:
            yield Misread("percent of the image's width and height", certain=exact), boxes * scale / 100
    beyond = (boxes[:, 2:] > sizes + TOLERANCE).any(1)
    corners = boxes.copy()
    corners[:, 2:] -= boxes[:, :2]
    if (beyond.mean() >= OUTSIDE or outlined) and _are_corners(corners, sizes):
        yield Misread("corners x1, y1, x2, y2 in place of x, y, width, height", certain=True), corners
    inverted = (boxes[:, 2:] < boxes[:, :2]).any(1)
    ends = boxes.copy()
    ends[:, 2:] += boxes[:, :2]
    if inverted.mean() >= INVERTED and _are_corners(ends, sizes):
        yield Misread("x, y, width, height in place of corners, or have negative sizes", certain=True), ends


def _are_fractions(boxes: Boxes, sizes: Boxes) -> bool:
    """Whether all are within a pixel, or two, and not at whole ones: corners, or YOLO's centres with sizes."""
    low, sides = min(0.0, boxes.min()), boxes[:, 2:] - boxes[:, :2]
    within = low >= -1 and max(boxes[:, :2].max(), sides.max() + low) <= 1.01  # VOC's reader has taken 1 from the first
    return bool(within and (boxes % 1).any() and sizes.min() > 8)


def _are_corners(boxes: Boxes, sizes: Boxes) -> bool:
    """Whether nearly all are boxes within their images."""
    right = (boxes[:, 2:] >= boxes[:, :2]) & (boxes[:, 2:] <= sizes + TOLERANCE)
    return bool(right.all(1).mean() >= NEARLY_ALL)


def _gap(boxes: Boxes, shown: dict[int, Boxes]) -> float:
    """How far outlines lie from their boxes, as a share of their size; the median."""
    gaps = [np.abs(boxes[place] - around).max() / (4 + np.ptp(around)) for place, around in shown.items()]
    return float(np.median(gaps))


def _outline_boxes(outlines: Segmentations, sizes: Boxes) -> dict[int, Boxes]:
    """The boxes around some outlines, by their place."""
    places = np.flatnonzero(outlines.outlined)
    found = {}
    for place in places[:: max(1, len(places) // SEEN)].tolist():
        width, height = sizes[place].astype(int).tolist()
        around = outline_box(outlines.get(place, height, width))
        if around is not None:
            found[place] = around
    return found


def outline_box(outline: Segmentation) -> Boxes | None:
    """x1, y1, x2, y2 around a mask; None for an empty mask."""
    if isinstance(outline, dict):
        x, y, width, height = rle.box(outline)
        return np.array([x, y, x + width, y + height], np.float64) if width else None
    points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in outline or []])
    return np.concatenate([points.min(0), points.max(0)])
