"""Copies of pictures in all parts: the same pixels, other sizes, other compression, cropped by up to a tenth a side.

    copies = Copies()
    copies.add(0, image)
    copies.pairs()                       # [Copy(first=0, second=7, likeness=0.998), ...]

Of each picture 32 x 32 cells of brightness are kept. Candidates are those whose coarse cells correlate. Of each pair,
one picture is then moved and stretched onto the other (Lucas and Kanade, 1981, with four parameters: shift and scale of
both axes), and all cells must correlate: a crop moves its cells too far to be compared without that.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 32  # cells
COARSE = 8  # cells by which candidates are found
CANDIDATE = 0.85  # correlation of coarse cells; of 50 planted copies (benchmarks/data_health.py) the least was 0.917
MOST = 8  # candidates of each picture
# Correlation once aligned: of the 50 copies 0.991 or more, of other pairs among 1,500 photographs 0.958 or less
ALIKE = 0.98
STEPS = 6  # of the alignment; with 40 no correlation changes by 0.001
FARTHEST = 0.12  # of a side, that an edge of one may lie inside the other
UNIFORM = 3.0  # standard deviation of the cells, of 255, below which there is nothing to compare
CHUNK = 2**23  # correlations at a time
PAIRS = 2**11  # pairs that are aligned at a time
Cells = NDArray[np.float32]  # (N, SIDE, SIDE)


class Copy(NamedTuple):
    """Two pictures that look alike: `first` came first."""

    first: int
    second: int
    likeness: float  # correlation once aligned, at most 1


class Copies:
    """Cells of every picture, 1 KB each."""

    def __init__(self) -> None:
        self.indices: list[int] = []
        self.cells: list[NDArray[np.uint8]] = []

    def add(self, index: int, image: Image.Image) -> None:
        """Nearly uniform pictures are left out."""
        cells = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), np.uint8)
        if cells.std() >= UNIFORM:
            self.indices.append(index)
            self.cells.append(cells)

    def pairs(self) -> list[Copy]:
        """All pairs of copies, most alike first. Every picture is compared with every one before it."""
        if len(self.cells) < 2:
            return []
        cells = np.stack(self.cells)
        smooth = [_smooth(cells[at : at + PAIRS]) for at in range(0, len(cells), PAIRS)]
        aligned = np.concatenate(smooth)
        first, second = self._candidates(cells)
        likeness = np.concatenate(
            [
                _aligned(aligned[first[at : at + PAIRS]], aligned[second[at : at + PAIRS]])
                for at in range(0, len(first), PAIRS)
            ]
            or [np.empty(0)]
        )
        found = [
            Copy(self.indices[one], self.indices[other], float(min(value, 1.0)))
            for one, other, value in zip(first.tolist(), second.tolist(), likeness.tolist(), strict=True)
            if value >= ALIKE
        ]
        return sorted(found, key=lambda copy: (-copy.likeness, copy.second, copy.first))

    def _candidates(self, cells: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Numbers of both pictures of each candidate pair, the earlier one first, each pair once."""
        width = SIDE // COARSE
        coarse = cells.reshape(-1, COARSE, width, COARSE, width).mean((2, 4), dtype=np.float32).reshape(len(cells), -1)
        coarse -= coarse.mean(1, keepdims=True)
        coarse /= np.maximum(np.linalg.norm(coarse, axis=1, keepdims=True), 1e-6)
        found: list[NDArray[np.int64]] = []
        step = max(1, CHUNK // len(cells))
        for start in range(0, len(cells), step):
            products = coarse[start : start + step] @ coarse.T
            part = np.arange(len(products))
            products[part, start + part] = -1
            most = min(MOST, len(cells) - 1)
            best = np.argpartition(-products, most - 1, axis=1)[:, :most]
            rows, columns = np.nonzero(np.take_along_axis(products, best, 1) >= CANDIDATE)
            found.append(np.stack([start + rows, best[rows, columns]], 1))
        pairs = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
        return pairs[:, 0], pairs[:, 1]


def _smooth(cells: NDArray[np.uint8]) -> Cells:
    """Each cell with its neighbours, by 1, 2, 1 along both axes: what aliases differs between a crop and the whole."""
    values = cells.astype(np.float32)
    for axis in (1, 2):
        padded = np.pad(values, [(0, 0), *((1, 1) if axis == other else (0, 0) for other in (1, 2))], mode="edge")
        before, after = (np.take(padded, range(start, start + SIDE), axis) for start in (0, 2))
        values = np.asarray((before + 2 * values + after) / 4, np.float32)
    return values


def _aligned(first: Cells, second: Cells) -> NDArray[np.float64]:
    """(P,) the correlation of pairs (P, SIDE, SIDE) once one lies on the other; of both directions the larger one."""
    return np.maximum(_onto(first, second), _onto(second, first))


def _onto(moving: Cells, fixed: Cells) -> NDArray[np.float64]:
    """The correlation over all of `fixed` with that window of `moving` that fits best; -1 where it lies too far out."""
    moved, target = _standard(moving), _standard(fixed)
    count = len(moved)
    places = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1  # of cells, from -1 to 1
    dy, dx = (np.asarray(slope, np.float32) for slope in np.gradient(moved, axis=(1, 2)))
    window = np.tile(np.array([0.0, 1.0]), (count, 2, 1))  # shift and scale of rows and of columns
    for _ in range(STEPS):
        rows, columns = (window[:, axis, :1] + window[:, axis, 1:] * places for axis in (0, 1))  # (P, SIDE)
        now = _standard(_sample(moved, rows, columns))
        gy, gx = _sample(dy, rows, columns) * (SIDE / 2), _sample(dx, rows, columns) * (SIDE / 2)
        slopes = np.stack([gy, gy * places[:, None], gx, gx * places[None, :]], 1).reshape(count, 4, -1)
        slopes -= slopes.mean(2, keepdims=True)
        matrix = slopes @ slopes.transpose(0, 2, 1) + 1e-3 * SIDE**2 * np.eye(4)
        change = np.linalg.solve(matrix, (slopes @ (target - now).reshape(count, -1, 1)))[..., 0]
        window += np.clip(change, -0.1, 0.1).reshape(count, 2, 2)
        window[:, :, 0] = np.clip(window[:, :, 0], -FARTHEST, FARTHEST)
        window[:, :, 1] = np.clip(window[:, :, 1], 1 - 2 * FARTHEST, 1.02)
    rows, columns = (window[:, axis, :1] + window[:, axis, 1:] * places for axis in (0, 1))
    now = _standard(_sample(moved, rows, columns))
    likeness: NDArray[np.float64] = (now * target).mean((1, 2), dtype=np.float64)
    return likeness


def _standard(values: NDArray[Any]) -> Cells:
    """(P, SIDE, SIDE) of mean 0 and standard deviation 1."""
    centred = values - values.mean((1, 2), keepdims=True, dtype=np.float64)
    spread = np.maximum(centred.std((1, 2), keepdims=True), 1e-6)
    return (centred / spread).astype(np.float32)  # type: ignore[no-any-return]


def _sample(values: Cells, rows: NDArray[Any], columns: NDArray[Any]) -> Cells:
    """Bilinear samples of (P, SIDE, SIDE) at rows (P, SIDE) and columns (P, SIDE), from -1 to 1 over its sides."""
    last = SIDE - 1
    y, x = (np.clip((places + 1) / 2 * SIDE - 0.5, 0, last) for places in (rows, columns))
    top, left = np.minimum(y.astype(np.int64), last - 1), np.minimum(x.astype(np.int64), last - 1)
    down, right = (y - top)[:, :, None], (x - left)[:, None, :]
    which = np.arange(len(values))[:, None, None]
    upper, lower = (values[which, (top + step)[:, :, None], :] for step in (0, 1))
    lines = (upper * (1 - down[..., None]) + lower * down[..., None])[:, :, 0, :]  # (P, SIDE, SIDE)
    first, second = (np.take_along_axis(lines, (left + step)[:, None, :], 2) for step in (0, 1))
    return (first * (1 - right) + second * right).astype(np.float32)
