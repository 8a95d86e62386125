"""Outlines of objects from COCO json, polygons or RLE: stored compactly, rasterised on demand.

    outlines = Segmentations.build([[[0, 0, 4, 0, 4, 4]], None])  # one entry per object
    outlines.get(0, height=8, width=8)                            # the polygons again

Run lengths are stored in COCO's text form (`runtime.rle`). An outline that cannot be used, such as a polygon of two
points, is none; its defect is stored in its place.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.errors import ResnestError
from resnest.runtime import rle

NONE, POLYGONS, RUNS, BAD = 0, 1, 2, 3
GRID = 5  # places a pixel that polygons are drawn on
AT_ONCE = 10_000  # polygons that are measured together
FARTHEST = 1e6  # pixels of a polygon's coordinates: every step of its outline takes memory while it is drawn

Segmentation = list[list[float]] | rle.RLE | None  # polygons as x, y, x, y, ...


class BadSegmentation(ValueError):
    """The defect of an outline."""


@dataclass(frozen=True, eq=False)
class Segmentations:
    """Outlines of many objects, in arrays that worker processes share."""

    kinds: NDArray[np.uint8]  # (A,) NONE, POLYGONS, RUNS or BAD
    spans: NDArray[np.int64]  # (A, 2) first and one behind the last: of polygons in `edges`, of others in `content`
    content: NDArray[np.uint8]  # run lengths, and defects
    coordinates: NDArray[np.float64]  # of all polygons, x, y, x, y, ...
    edges: NDArray[np.int64]  # (P + 1,) where each polygon starts in `coordinates`

    @classmethod
    def build(cls, segmentations: Iterable[Any]) -> Segmentations:
        builder = SegmentationBuilder()
        for segmentation in segmentations:
            builder.add(segmentation)
        return builder.done()

    def __len__(self) -> int:
        return len(self.kinds)

    def subset(self, order: NDArray[np.int64]) -> Segmentations:
        """A selection, in the order given; what the rows point at is not copied."""
        return replace(self, kinds=self.kinds[order], spans=self.spans[order])

    @property
    def outlined(self) -> NDArray[np.bool_]:
        """Which objects have an outline that can be used, (A,)."""
        outlined: NDArray[np.bool_] = (self.kinds == POLYGONS) | (self.kinds == RUNS)
        return outlined

    def defect(self, row: int) -> str:
        """Why an outline cannot be used; empty for others."""
        return self._bytes(row).decode() if self.kinds[row] == BAD else ""

    def get(self, row: int, height: int, width: int) -> Segmentation:
        """The outline in pycocotools' form."""
        kind = self.kinds[row]
        if kind == RUNS:
            return {"size": [height, width], "counts": self._bytes(row).decode("ascii")}
        if kind != POLYGONS:
            return None
        first, end = self.spans[row]
        edges = self.edges[first : end + 1].tolist()
        return [self.coordinates[start:stop].tolist() for start, stop in pairwise(edges)]

    def _bytes(self, row: int) -> bytes:
        start, end = self.spans[row]
        return self.content[start:end].tobytes()


class SegmentationBuilder:
    """Appends outlines one by one to flat arrays."""

    def __init__(self) -> None:
        self.kinds = bytearray()
        self.spans = array("q")
        self.content = bytearray()
        self.coordinates = array("d")
        self.edges = array("q", [0])
        self.sizes: dict[int, tuple[int, int]] = {}  # height and width of run lengths, by row

    def add(self, segmentation: Any) -> None:
        """Append an outline, or what is wrong with it."""
        row = len(self.kinds)
        self.kinds.append(NONE)
        self.spans.extend((0, 0))
        try:
            if isinstance(segmentation, list) and segmentation:
                self._add_polygons(row, segmentation)
            elif isinstance(segmentation, dict):
                self.sizes[row], content = _runs(segmentation)
                self._set(row, RUNS, content)
            elif segmentation:
                raise BadSegmentation("segmentation is neither a list of polygons nor run lengths")
        except BadSegmentation as error:
            self._set(row, BAD, str(error).encode())

    def _set(self, row: int, kind: int, content: bytes) -> None:
        self.kinds[row] = kind
        self.spans[2 * row] = len(self.content)
        self.content += content
        self.spans[2 * row + 1] = len(self.content)

    def _add_polygons(self, row: int, polygons: list[Any]) -> None:
        parts = []
        for number, polygon in enumerate(polygons):
            if not isinstance(polygon, list):
                raise BadSegmentation(f"polygon {number} is not a list of coordinates x, y, x, y, ...")
            if len(polygon) < 6 or len(polygon) % 2:
                what = f"{len(polygon) // 2} points" if len(polygon) % 2 == 0 else f"{len(polygon)} coordinates"
                raise BadSegmentation(f"polygon {number} has {what}: three points are needed, each x and y")
            try:
                parts.append(array("d", polygon))
            except (TypeError, OverflowError):
                raise BadSegmentation(f"polygon {number} has a coordinate that is not a number") from None
        self.kinds[row] = POLYGONS
        self.spans[2 * row] = len(self.edges) - 1
        for points in parts:
            self.coordinates += points
            self.edges.append(len(self.coordinates))
        self.spans[2 * row + 1] = len(self.edges) - 1

    def check(self, sizes: NDArray[np.int32]) -> NDArray[np.float64]:
        """Mark outlines that cannot be of images of width and height `sizes` (A, 2), and measure the others.

        Returns:
            (A, 2): the areas of the largest polygon and of all polygons, or the pixels twice; NaN without an outline.
        """
        areas = np.full((len(self.kinds), 2), np.nan)
        coordinates, edges = np.frombuffer(self.coordinates), np.array(self.edges, np.int64)
        rows = np.flatnonzero(np.frombuffer(bytes(self.kinds), np.uint8) == POLYGONS)
        if len(rows):
            firsts = np.array(self.spans, np.int64)[2 * rows]
            for place in np.flatnonzero(~(np.abs(coordinates) <= FARTHEST)).tolist():
                row = int(rows[np.searchsorted(edges[firsts], place, side="right") - 1])
                far = self.coordinates[place]
                what = f"coordinate {far:g}: those of pixels are {FARTHEST:g} at most"
                what = what if math.isfinite(far) else "coordinate that is not finite"
                self._set(row, BAD, f"a polygon has {'the' if math.isfinite(far) else 'a'} {what}".encode())
            parts = polygon_areas(coordinates, edges)
            areas[rows] = np.stack([np.maximum.reduceat(parts, firsts), np.add.reduceat(parts, firsts)], axis=1)
        for row, size in self.sizes.items():
            try:
                areas[row] = self._pixels(row, size, height=int(sizes[row, 1]), width=int(sizes[row, 0]))
            except BadSegmentation as error:
                self._set(row, BAD, str(error).encode())
        return areas

    def _pixels(self, row: int, size: tuple[int, int], *, height: int, width: int) -> int:
        """The pixels of run lengths."""
        high, wide = size
        if (high, wide) != (height, width):
            raise BadSegmentation(
                f"RLE of {wide} x {high} pixels (width x height) in an image of {width} x {height} pixels"
            )
        counts = self.content[self.spans[2 * row] : self.spans[2 * row + 1]].decode("ascii")
        try:
            return rle.area({"size": [height, width], "counts": counts})
        except ResnestError as error:
            raise BadSegmentation(f"RLE: {error}") from None

    def done(self) -> Segmentations:
        return Segmentations(
            kinds=np.frombuffer(bytes(self.kinds), np.uint8),
            spans=np.array(self.spans, np.int64).reshape(-1, 2),
            content=np.frombuffer(self.content, np.uint8),
            coordinates=np.frombuffer(self.coordinates, np.float64),
            edges=np.array(self.edges, np.int64),
        )


def polygon_areas(coordinates: NDArray[np.float64], edges: NDArray[np.int64]) -> NDArray[np.float64]:
    """The area of each polygon by the shoelace formula, (P,)."""
    areas = np.empty(len(edges) - 1)
    for start in range(0, len(areas), AT_ONCE):
        part = edges[start : start + AT_ONCE + 1]
        x, y = coordinates[part[0] : part[-1]].reshape(-1, 2).T
        first, last = (part[:-1] - part[0]) // 2, (part[1:] - part[0]) // 2 - 1
        after = np.arange(1, len(x) + 1)
        after[last] = first
        with np.errstate(invalid="ignore", over="ignore"):  # of coordinates that are refused
            areas[start : start + AT_ONCE] = np.abs(np.add.reduceat(x * y[after] - x[after] * y, first)) / 2
    return areas


def _runs(segmentation: dict[str, Any]) -> tuple[tuple[int, int], bytes]:
    try:
        high, wide = segmentation["size"]
        counts = segmentation["counts"]
    except (KeyError, TypeError, ValueError):
        raise BadSegmentation("RLE needs counts and size: [height, width]") from None
    if not (isinstance(high, int) and isinstance(wide, int) and 0 < high < 2**31 and 0 < wide < 2**31):
        raise BadSegmentation(f"RLE has the size {segmentation['size']}: expected [height, width]")
    if isinstance(counts, str):
        return (high, wide), counts.encode("ascii", "replace")
    if isinstance(counts, list) and all(isinstance(count, int) and 0 <= count < 2**31 for count in counts):
        return (high, wide), rle.pack(np.array(counts, np.int64)).encode()
    raise BadSegmentation("RLE has counts that are neither text nor integers")


def decode_rle_columns(runs: rle.RLE) -> tuple[slice, NDArray[np.bool_]]:
    """The columns of a mask with pixels, and the mask there, (height, columns)."""
    height = runs["size"][0]
    counts = rle.lengths(runs)
    ends = np.cumsum(counts)
    filled = np.flatnonzero(counts[1::2]) * 2 + 1
    if not len(filled):
        return slice(0, 0), np.zeros((height, 0), bool)
    left = int(ends[filled[0] - 1]) // height
    right = (int(ends[filled[-1]]) - 1) // height + 1
    edges = np.clip(ends, left * height, right * height)
    flat = np.repeat(np.arange(len(edges)) % 2 == 1, np.diff(edges, prepend=left * height))
    return slice(left, right), flat.reshape(-1, height).T


def rasterise_polygons(
    polygons: list[NDArray[np.float64]], height: int, width: int
) -> tuple[slice, slice, NDArray[np.bool_]]:
    """Of a mask of this size, the rows and columns that the polygons, each (points, 2), lie in, and the mask there.

    Drawn by COCO's own rule, on a grid of fifths of a pixel (maskApi.c, rleFrPoly); what is outside is clipped.
    """
    try:
        from faster_coco_eval.core import mask as coco
    except ImportError:
        raise ResnestError("masks of polygons need faster-coco-eval: pip install 'resnest[detection]'") from None

    points = np.concatenate(polygons)
    left, top = np.clip(np.floor(points.min(0)), 0, (width, height)).astype(int).tolist()
    right, bottom = np.clip(np.ceil(points.max(0)) + 1, 0, (width, height)).astype(int).tolist()
    within = slice(top, bottom), slice(left, right)
    if right <= left or bottom <= top:
        return *within, np.zeros((max(bottom - top, 0), max(right - left, 0)), bool)
    moved = []
    for polygon in polygons:
        grid = np.trunc(polygon * GRID + 0.5) - (GRID * left, GRID * top)  # rounded first, or moving would round it
        moved.append((np.where(grid < 0, grid - 0.75, grid) / GRID).ravel().tolist())  # towards 0, as they are again
    runs = coco.merge(coco.frPyObjects(moved, bottom - top, right - left))
    return *within, coco.decode(runs).astype(bool)
