"""The label map of a large picture from its tiles: their probabilities blended, row by row.

Probabilities are kept of what later tiles see as well, and of nothing else: the columns that the next tile shares, and
the rows that the next row of tiles shares. So memory for them is classes x shared rows x width, whatever the height.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from resnest.runtime.engines.exported import Engine, Prepared, Views
from resnest.runtime.tiles import Grid, Span, Tile, fades
from resnest.segmentation.card import SegmentationCard
from resnest.segmentation.predict import Map, probabilities
from resnest.segmentation.result import LabelMap


class BlendedLabels:
    """The most likely class of each pixel by the weighted mean of all tiles with it (`fades`)."""

    def __init__(self, engine: Engine, card: SegmentationCard, grid: Grid, name: str, views: Views | None) -> None:
        self.engine, self.card, self.grid, self.name, self.views = engine, card, grid, name, views
        self.across, self.down = fades(grid.columns), fades(grid.rows)  # weights of columns and rows, by tile
        width, height = grid.size
        count = len(card.classes.names)
        self.labels = np.zeros((height, width), np.uint8)
        self.pixels, self.sums = np.zeros(count, np.int64), np.zeros(count)  # of each class, and of its probabilities
        self.beside: Map | None = None  # (K, h, shared) of the tiles to the left
        self.above: Map | None = None  # (K, shared, W) of the tiles above, and already of this row's, from the left

    def add(self, images: Sequence[Prepared], tiles: Sequence[Tile]) -> None:
        for tile, planes in zip(tiles, probabilities(self.engine, self.card, images, self.views), strict=True):
            self._blend(tile, planes)

    def _blend(self, tile: Tile, planes: Map) -> None:
        """A tile's probabilities, (K, h, w)."""
        left, top = tile.box[:2]
        planes = planes * self.across[tile.column]
        if tile.column and self.beside is not None:
            planes[..., : self.beside.shape[2]] += self.beside
        wide = _alone(self.grid.columns, tile.column)
        self.beside = planes[..., wide:].copy()
        done = planes[..., :wide] * self.down[tile.row][:, None]
        columns = np.s_[left : left + wide]
        shared = self.grid.rows[tile.row - 1][1] - top if tile.row else 0
        if self.above is not None:
            done[:, :shared] += self.above[:, :shared, columns]
        high = _alone(self.grid.rows, tile.row)
        if self.above is None:
            most = max((_shared(self.grid.rows, row) for row, _ in enumerate(self.grid.rows)), default=0)
            self.above = np.empty((len(planes), most, self.grid.size[0]), np.float32)
        self.above[:, : done.shape[1] - high, columns] = done[:, high:]
        self._settle(done[:, :high], left, top)

    def _settle(self, planes: Map, left: int, top: int) -> None:
        """Pixels of which all tiles have been seen."""
        labels = planes.argmax(0).astype(np.uint8)
        self.labels[top : top + labels.shape[0], left : left + labels.shape[1]] = labels
        count = len(self.pixels)
        self.pixels += np.bincount(labels.reshape(-1), minlength=count)
        self.sums += np.bincount(labels.reshape(-1), weights=planes.max(0).reshape(-1), minlength=count)

    def result(self) -> LabelMap:
        scores: NDArray[np.float32] = (self.sums / np.maximum(self.pixels, 1)).astype(np.float32)
        return LabelMap(self.name, self.card.classes, self.labels, scores)


def _shared(spans: Sequence[Span], number: int) -> int:
    """Pixels that a tile shares with the next along an axis."""
    return max(0, spans[number][1] - spans[number + 1][0]) if number + 1 < len(spans) else 0


def _alone(spans: Sequence[Span], number: int) -> int:
    """Pixels at the start of a tile that no later one sees."""
    start, stop = spans[number]
    return stop - start - _shared(spans, number)
