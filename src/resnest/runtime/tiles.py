"""Large pictures in tiles: squares that overlap, each predicted as a picture of its own, and joined by the task.

    tiles = Tiles(640, 0.2)
    tiles.grid(12_000, 9_000)                 # 24 x 18 tiles of 640 pixels, evenly spread
    fades([(0, 640), (360, 1000)])            # weights of the pixels where tiles are blended

Tiles are of the picture's own pixels, and the model resizes each as it resizes a picture of that size. A picture that
fits into one tile is predicted whole, as without tiles. How results are joined is the task's: its `TaskInfo.joiner`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from resnest.errors import ResnestError, parameter
from resnest.runtime.preprocess import LARGEST

LEAST = 32  # pixels a side: the stride of the networks' coarsest maps
OVERLAP = 0.2  # of a side, at least: SAHI's default (arXiv 2202.06934)

Span = tuple[int, int]  # start, and the place after the end
Box = tuple[int, int, int, int]  # left, top, right, bottom


class Tile(NamedTuple):
    """A tile of a picture, and its place in the grid."""

    row: int
    column: int
    box: Box


class Grid(NamedTuple):
    """The tiles of a picture."""

    size: tuple[int, int]  # width, height of the picture
    columns: list[Span]
    rows: list[Span]

    def __len__(self) -> int:
        return len(self.columns) * len(self.rows)

    def tiles(self) -> Iterator[Tile]:
        """Row by row."""
        for row, (top, bottom) in enumerate(self.rows):
            for column, (left, right) in enumerate(self.columns):
                yield Tile(row, column, (left, top, right, bottom))


@dataclass(frozen=True)
class Tiles:
    """How large pictures are cut into tiles.

    Args:
        tile: side of a tile, in pixels of the picture.
        overlap: the part of a side that neighbours share at least, from 0 up to 1.

    Raises:
        ResnestError: no such tile or overlap.
    """

    tile: int = 640
    overlap: float = OVERLAP

    def __post_init__(self) -> None:
        whole = isinstance(self.tile, int) and not isinstance(self.tile, bool)
        if not whole or not LEAST <= self.tile <= LARGEST:
            raise ResnestError(f"{parameter('tile', self.tile)}: expected {LEAST} to {LARGEST} pixels")
        if not isinstance(self.overlap, int | float) or not 0 <= self.overlap < 1:
            expected = f"from 0 to less than 1, the part of a tile that its neighbour sees, too, such as {OVERLAP}"
            raise ResnestError(f"{parameter('overlap', self.overlap)}: expected a number {expected}")

    @classmethod
    def of(cls, tile: int | None, overlap: float | None) -> Tiles | None:
        """Of options that may be left out. Raises ResnestError for an overlap of no tiles."""
        if tile is None:
            if overlap is not None:
                raise ResnestError(f"{parameter('overlap')} is for tiles: give {parameter('tile')}, too")
            return None
        return cls(tile, OVERLAP if overlap is None else overlap)

    def grid(self, width: int, height: int) -> Grid:
        """The tiles of a picture of this size."""
        columns, rows = (spans(length, self.tile, self.overlap) for length in (width, height))
        return Grid((width, height), columns, rows)


def spans(length: int, side: int, overlap: float) -> list[Span]:
    """As few tiles along an axis as overlap enough, evenly spread, the first and the last flush with the ends.

    So all overlap alike (as in nnU-Net's sliding windows), which keeps small what has to be stored of the overlap.

    >>> spans(1000, 640, 0.2), spans(500, 640, 0.2)
    ([(0, 640), (360, 1000)], [(0, 500)])
    """
    if length <= side:
        return [(0, length)]
    step = max(1.0, side * (1 - overlap))
    count = 1 + math.ceil(round((length - side) / step, 6))
    starts = [round(number * (length - side) / (count - 1)) for number in range(count)]
    return [(start, start + side) for start in starts]


def fades(spans: Sequence[Span]) -> list[NDArray[np.float32]]:
    """Of each tile along an axis, the weight of its pixels; those of all tiles with a pixel add up to 1.

    Weights fall linearly from the middle of a tile to its ends, so from one tile to the next there is no step.
    """
    total = np.zeros(spans[-1][1])
    ramps = []
    for start, stop in spans:
        middles = np.arange(stop - start) + 0.5
        ramps.append(np.minimum(middles, stop - start - middles))
        total[start:stop] += ramps[-1]
    return [(ramp / total[start:stop]).astype(np.float32) for (start, stop), ramp in zip(spans, ramps, strict=True)]
