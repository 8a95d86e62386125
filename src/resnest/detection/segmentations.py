"""Outlines of objects from COCO json, polygons or RLE: stored compactly, rasterised on demand.

    outlines = Segmentations.build([[[0, 0, 4, 0, 4, 4]], None])  # one entry per object
    outlines.get(0, height=8, width=8)                            # the polygons again

Run lengths are stored in COCO's text form (`runtime.rle`).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.errors import ResnestError
from resnest.runtime import rle

NONE, POLYGONS, RUNS = 0, 1, 2
GRID = 5  # places a pixel that polygons are drawn on
FARTHEST = 1e6  # pixels of a polygon's coordinates: every step of its outline takes memory while it is drawn

Segmentation = list[list[float]] | rle.RLE | None  # polygons as x, y, x, y, ...


class BadSegmentation(ValueError):
    """The defect of an outline; the reader adds the file and the annotation."""


@dataclass(frozen=True, eq=False)
class Segmentations:
    """Outlines of many objects, in arrays that worker processes share."""

    kinds: NDArray[np.uint8]  # (A,) NONE, POLYGONS or RUNS
    spans: NDArray[np.int64]  # (A, 2) first byte and the one behind the last
    content: NDArray[np.uint8]
    sizes: NDArray[np.int32]  # (A, 2) height, width as run lengths give them; 0 elsewhere

    @classmethod
    def build(cls, segmentations: Iterable[Any]) -> Segmentations:
        """Raises BadSegmentation."""
        builder = SegmentationBuilder()
        for segmentation in segmentations:
            builder.add(segmentation)
        return builder.done()

    def __len__(self) -> int:
        return len(self.kinds)

    def subset(self, order: NDArray[np.int64]) -> Segmentations:
        """A selection, in the order given; the bytes are not copied."""
        return Segmentations(self.kinds[order], self.spans[order], self.content, self.sizes[order])

    def _bytes(self, row: int) -> bytes:
        start, end = self.spans[row]
        return self.content[start:end].tobytes()

    def get(self, row: int, height: int, width: int) -> Segmentation:
        """The outline in pycocotools' form."""
        kind, content = self.kinds[row], self._bytes(row)
        if kind == NONE:
            return None
        if kind == RUNS:
            return {"size": [height, width], "counts": content.decode("ascii")}
        return [polygon.tolist() for polygon in unpack_polygons(content)]

    def check(self, row: int, height: int, width: int) -> None:
        """Raises BadSegmentation if run lengths do not fill the image."""
        if self.kinds[row] != RUNS:
            return
        high, wide = map(int, self.sizes[row])
        if (high, wide) != (height, width):
            raise BadSegmentation(
                f"RLE of {wide} x {high} pixels (width x height) in an image of {width} x {height} pixels"
            )
        try:
            rle.lengths({"size": [height, width], "counts": self._bytes(row).decode("ascii")})
        except ResnestError as error:
            raise BadSegmentation(f"RLE: {error}") from None


class SegmentationBuilder:
    """Appends outlines one by one to flat arrays."""

    def __init__(self) -> None:
        self.kinds = bytearray()
        self.starts = array("q", [0])
        self.content = bytearray()
        self.sizes = array("i")

    def add(self, segmentation: Any) -> None:
        """Append an outline. Raises BadSegmentation; TypeError for invalid numbers."""
        size = (0, 0)
        if not segmentation:
            kind, content = NONE, b""
        elif isinstance(segmentation, dict):
            kind, (size, content) = RUNS, _runs(segmentation)
        elif isinstance(segmentation, list):
            kind, content = POLYGONS, _pack_polygons(segmentation)
        else:
            raise BadSegmentation("segmentation is neither a list of polygons nor run lengths")
        self.kinds.append(kind)
        self.content += content
        self.starts.append(len(self.content))
        self.sizes.extend(size)

    def done(self) -> Segmentations:
        starts = np.array(self.starts, np.int64)
        return Segmentations(
            kinds=np.frombuffer(bytes(self.kinds), np.uint8),
            spans=np.stack([starts[:-1], starts[1:]], axis=1),
            content=np.frombuffer(self.content, np.uint8),
            sizes=np.array(self.sizes, np.int32).reshape(-1, 2),
        )


def _pack_polygons(polygons: list[Any]) -> bytes:
    """Number of polygons and of each one's coordinates, 32 bits each; the coordinates in 64, as exact as they were."""
    for number, polygon in enumerate(polygons):
        if not isinstance(polygon, list):
            raise BadSegmentation(f"polygon {number} is not a list of coordinates x, y, x, y, ...")
        if len(polygon) < 6 or len(polygon) % 2:
            what = f"{len(polygon) // 2} points" if len(polygon) % 2 == 0 else f"{len(polygon)} coordinates"
            raise BadSegmentation(f"polygon {number} has {what}: three points are needed, each x and y")
    packed = array("i", [len(polygons), *map(len, polygons)]).tobytes()
    for polygon in polygons:
        points = array("d", polygon)
        if not all(map(math.isfinite, points)):
            raise BadSegmentation("a polygon has a coordinate that is not finite")
        if (far := max(points, key=abs)) and abs(far) > FARTHEST:
            raise BadSegmentation(f"a polygon has the coordinate {far:g}: those of pixels are {FARTHEST:g} at most")
        packed += points.tobytes()
    return packed


def unpack_polygons(content: bytes) -> list[NDArray[np.float64]]:
    """Each (2 x points,)."""
    count = int(np.frombuffer(content, np.int32, 1)[0])
    lengths = np.frombuffer(content, np.int32, count, 4)
    coordinates = np.frombuffer(content[4 * (1 + count) :], np.float64)
    return np.split(coordinates, np.cumsum(lengths)[:-1])


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
