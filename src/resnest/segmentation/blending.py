"""The label map, or the masks, of a large picture from its tiles: their probabilities blended, row by row.

Probabilities are kept of what later tiles see as well, and of nothing else: the columns that the next tile shares, and
the rows that the next row of tiles shares. So memory for them is classes x shared rows x width, whatever the height.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from resnest.runtime.engines.exported import Engine, Prepared, Views
from resnest.runtime.tiles import Grid, Span, Tile, fades
from resnest.segmentation.card import SegmentationCard
from resnest.segmentation.mask_stack import MaskStack
from resnest.segmentation.predict import Map, probabilities
from resnest.segmentation.result import LabelMap


class Blended(ABC):
    """The weighted mean of the probabilities of all tiles with a pixel (`fades`)."""

    def __init__(self, engine: Engine, card: SegmentationCard, grid: Grid, name: str, views: Views | None) -> None:
        self.engine, self.card, self.grid, self.name, self.views = engine, card, grid, name, views
        self.across, self.down = fades(grid.columns), fades(grid.rows)  # weights of columns and rows, by tile
        count = len(card.classes.names)
        self.pixels, self.sums = np.zeros(count, np.int64), np.zeros(count)  # of each class, and of its probabilities
        self.beside: Map | None = None  # (K, h, shared) of the tiles to the left
        self.above: Map | None = None  # (K, shared, W) of the tiles above, and already of this row's, from the left

    @abstractmethod
    def _settle(self, planes: Map, left: int, top: int) -> None:
        """Probabilities (K, h, w) of pixels of which all tiles have been seen."""

    @abstractmethod
    def result(self) -> LabelMap | MaskStack: ...

    def _scores(self) -> NDArray[np.float32]:
        """Mean probability of each class's pixels."""
        scores: NDArray[np.float32] = (self.sums / np.maximum(self.pixels, 1)).astype(np.float32)
        return scores

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


class BlendedLabels(Blended):
    """The most likely class of each pixel."""

    def __init__(self, engine: Engine, card: SegmentationCard, grid: Grid, name: str, views: Views | None) -> None:
        super().__init__(engine, card, grid, name, views)
        self.labels = np.zeros(grid.size[::-1], np.uint8)

    def _settle(self, planes: Map, left: int, top: int) -> None:
        labels = planes.argmax(0).astype(np.uint8)
        self.labels[top : top + labels.shape[0], left : left + labels.shape[1]] = labels
        count = len(self.pixels)
        self.pixels += np.bincount(labels.reshape(-1), minlength=count)
        self.sums += np.bincount(labels.reshape(-1), weights=planes.max(0).reshape(-1), minlength=count)

    def result(self) -> LabelMap:
        return LabelMap(self.name, self.card.classes, self.labels, self._scores())


class BlendedMasks(Blended):
    """The pixels of each class whose probability reaches the card's threshold; a byte for each class and pixel."""

    def __init__(self, engine: Engine, card: SegmentationCard, grid: Grid, name: str, views: Views | None) -> None:
        super().__init__(engine, card, grid, name, views)
        self.masks = np.zeros((len(self.pixels), *grid.size[::-1]), bool)

    def _settle(self, planes: Map, left: int, top: int) -> None:
        there = planes >= self.card.threshold
        self.masks[:, top : top + planes.shape[1], left : left + planes.shape[2]] = there
        self.pixels += np.count_nonzero(there, axis=(1, 2))
        self.sums += (planes * there).sum((1, 2), dtype=np.float64)

    def result(self) -> MaskStack:
        return MaskStack(self.name, self.card.classes, self.masks, self._scores())


def blended(engine: Engine, card: SegmentationCard, grid: Grid, name: str, views: Views | None) -> Blended:
    """The joiner of a card's tiles."""
    return (BlendedMasks if card.segmenter.multi_label else BlendedLabels)(engine, card, grid, name, views)


def _shared(spans: Sequence[Span], number: int) -> int:
    """Pixels that a tile shares with the next along an axis."""
    return max(0, spans[number][1] - spans[number + 1][0]) if number + 1 < len(spans) else 0


def _alone(spans: Sequence[Span], number: int) -> int:
    """Pixels at the start of a tile that no later one sees."""
    start, stop = spans[number]
    return stop - start - _shared(spans, number)
