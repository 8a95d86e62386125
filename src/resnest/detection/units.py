"""Boxes that are not corners in pixels: fractions, percent, corners in place of sizes and the reverse.

    misread = samples.objects.misread()
    misread.looks, misread.certain      # "look like percent of the image's width and height", True; None: all is well

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

FRACTIONS = "which look like fractions of the image's width and height"
PERCENT = "which look like percent of the image's width and height"

Boxes = NDArray[np.float64]  # (M, 4) x1, y1, x2, y2

TOLERANCE = 1.0  # pixels by which a box may exceed its image: some data sets count from 1
SEEN = 200  # outlines that boxes are compared with, spread over the data
NEAR, BETTER = 0.1, 4  # between outlines and their boxes, as a share of their size, and this much nearer than as read
OUTSIDE, INVERTED = 0.1, 0.3  # share of boxes that are impossible as they are read
NEARLY_ALL = 0.95
APART, FEWEST = 0.5, 3  # overlap of boxes with those around their outlines that do not fit them, and the fewest to say
MANY, LARGE, SPREAD = 20, 300, 75  # boxes, and pixels a side of all images, from which on boxes up to (75, 75) to
# (100, 100) alone are suspicious


class Misread(NamedTuple):
    """What the boxes look like."""

    looks: str  # behind `boxes`
    certain: bool  # by their outlines, or because nothing else is possible
    remedy: str = "write x, y, width and height (VOC: corners) in pixels"

    @property
    def advice(self) -> str:
        return f"{self.looks}: {self.remedy}"

    def describe(self, count: int) -> str:
        return f"the {count:,} boxes {self.advice}"


def find_misread(boxes: Boxes, sizes: Boxes, outlines: Segmentations) -> Misread | None:
    """What boxes (M, 4) look like, in images of these sizes (M, 2), where they are not corners in pixels."""
    if not len(boxes):
        return None
    if _are_fractions(boxes, sizes):
        return Misread("look like fractions of the image's width and height", certain=True)
    shown = _outline_boxes(outlines, sizes)
    gap = _gap(boxes, shown) if shown else 0.0
    for misread, meant in _readings(boxes, sizes, outlined=bool(shown)):
        if not shown or _fits(_gap(meant, shown), gap):
            return Misread(misread.looks, misread.certain or bool(shown))
    return _contradiction(boxes, sizes, shown, gap)


def _fits(gap: float, before: float) -> bool:
    """Whether boxes in another reading fit their outlines, which they do not as they are read."""
    return gap < min(NEAR, before / BETTER)


def _contradiction(boxes: Boxes, sizes: Boxes, shown: dict[int, Boxes], gap: float) -> Misread | None:
    """What is wrong where outlines fit the boxes in another reading, or nearly none fits its box."""
    if not shown:
        return None
    places, around = np.array(list(shown)), np.stack(list(shown.values()))
    scale = np.tile(sizes, 2)[places]
    exchanged = around[:, [1, 0, 3, 2]]
    for meant, looks, remedy in (
        (exchanged, "do not fit their outlines: x and y of one of the two are exchanged", "write x before y"),
        (around * scale, f"do not fit their outlines, {FRACTIONS}", "write outlines in pixels"),
        (around * scale / 100, f"do not fit their outlines, {PERCENT}", "write outlines in pixels"),
    ):
        if _fits(_gap(boxes, dict(zip(shown, meant, strict=True))), gap):
            return Misread(looks, certain=True, remedy=remedy)
    apart = float((_shares(boxes[places], around) < APART).mean())
    if len(shown) < FEWEST or apart < NEARLY_ALL:
        return None
    return Misread("do not fit their outlines", certain=True, remedy="correct boxes or outlines, or leave outlines out")


def _shares(boxes: Boxes, others: Boxes) -> NDArray[np.float64]:
    """The overlap of each box with another one, as a share of both (IoU), (M,)."""
    sides = np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2])
    both = np.maximum(sides, 0).prod(1)
    areas = [np.maximum(each[:, 2:] - each[:, :2], 0).prod(1) for each in (boxes, others)]
    shares: NDArray[np.float64] = both / np.maximum(areas[0] + areas[1] - both, 1e-9)
    return shares


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
            yield Misread("look like percent of the image's width and height", certain=exact), boxes * scale / 100
    beyond = (boxes[:, 2:] > sizes + TOLERANCE).any(1)
    corners = boxes.copy()
    corners[:, 2:] -= boxes[:, :2]
    if (beyond.mean() >= OUTSIDE or outlined) and _are_corners(corners, sizes):
        yield Misread("look like corners x1, y1, x2, y2 in place of x, y, width, height", certain=True), corners
    yield from _beyond(boxes, sizes, outlined=outlined)
    inverted = (boxes[:, 2:] < boxes[:, :2]).any(1)
    ends = boxes.copy()
    ends[:, 2:] += boxes[:, :2]
    if inverted.mean() >= INVERTED and _are_corners(ends, sizes):
        yield Misread("look like x, y, width, height in place of corners, or have negative sizes", certain=True), ends


def _beyond(boxes: Boxes, sizes: Boxes, *, outlined: bool) -> Iterator[tuple[Misread, Boxes]]:
    """Readings in which boxes lie within their images, where many do not as they are read."""
    outside = float((boxes[:, 2:] > sizes + TOLERANCE).any(1).mean())
    spread = boxes.min() >= -1 and boxes.max() <= 1000.5 and boxes[:, 2:].max(0).min() >= 10 * SPREAD
    if spread and (outside >= INVERTED or outlined):
        looks = "look like thousandths of the image's width and height"
        yield Misread(looks, certain=outside >= INVERTED), boxes * np.tile(sizes, 2) / 1000
    halves = (boxes[:, 2:] - boxes[:, :2]) / 2
    centred = np.concatenate([boxes[:, :2] - halves, boxes[:, :2] + halves], axis=1)
    for meant, looks in (
        (centred, "look like centre x, centre y, width, height in place of x, y, width, height"),
        (boxes[:, [1, 0, 3, 2]], "look like y, x, height, width in place of x, y, width, height"),
    ):
        within = (meant[:, :2] >= -TOLERANCE).all(1).mean() >= NEARLY_ALL and _are_corners(meant, sizes)
        if (outside >= OUTSIDE and within) or (outlined and meant is centred):
            yield Misread(looks, certain=False), meant


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
