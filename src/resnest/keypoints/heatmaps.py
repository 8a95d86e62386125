"""Heatmaps of points: what a network learns, and from its maps back to points.

    targets = encode(points, seen, (64, 48), sigma=2)              # (K, 64, 48), points in pixels of the input
    places, values = decode(heatmaps, sigma=2)                     # (N, K, 2) in pixels of the input, (N, K)

A cell of a map covers STRIDE x STRIDE pixels of the input; its value belongs to its middle. `decode` is DARK's
(arXiv 1910.06278): the map is smoothed, and its logarithm, which is a parabola around a Gaussian's peak, gives the
peak's place between the cells. The older way, a quarter of a cell towards the higher neighbour (arXiv 1603.06937), is
left for peaks at the border, which lack neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

STRIDE = 4  # pixels of the input to a cell: 32 of the last stage, after three deconvolutions
LEAST = 1e-10  # of a map's value before its logarithm
REACH = 3  # sigmas of the smoothing kernel on each side: 11 cells or more

Maps = NDArray[np.float32]  # (..., h, w)
Decoding = Literal["dark", "quarter"]


def encode(points: NDArray[np.floating], seen: NDArray[np.bool_], shape: tuple[int, int], *, sigma: float) -> Maps:
    """Gaussians of height 1 around points (K, 2) in pixels of the input; a point that is not seen has zeros.

    Args:
        shape: height and width of the maps.
        sigma: in cells.
    """
    rows, columns = (np.arange(side) for side in shape)
    x, y = (points / STRIDE - 0.5).astype(np.float64).T  # in cells, the middle of the first is 0
    across = np.exp(-((columns - x[:, None]) ** 2) / (2 * sigma**2))  # (K, w)
    down = np.exp(-((rows - y[:, None]) ** 2) / (2 * sigma**2))  # (K, h)
    maps: Maps = (down[:, :, None] * across[:, None, :] * seen[:, None, None]).astype(np.float32)
    return maps


def flipped(maps: Maps, mirrored: Sequence[int]) -> Maps:
    """Maps (..., K, h, w) of a mirrored input, in the input's own order and direction."""
    return np.ascontiguousarray(maps[..., list(mirrored), :, ::-1])


def decode(maps: Maps, *, sigma: float, how: Decoding = "dark") -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Points (N, K, 2) in pixels of the input, and the highest value of each map, (N, K), at least 0.

    Args:
        maps: (N, K, h, w).
        sigma: of the Gaussians that the network learned, in cells.
    """
    count, kinds, high, wide = maps.shape
    flat = maps.reshape(count * kinds, high, wide)
    best = flat.reshape(len(flat), -1).argmax(1) if len(flat) else np.zeros(0, np.int64)
    row, column = best // wide, best % wide
    values = flat[np.arange(len(flat)), row, column]
    shift = _quarter(flat, row, column)
    if how == "dark":
        refined, known = _dark(flat, row, column, sigma)
        shift[known] = refined[known]
    cells = np.stack([column, row], axis=1) + shift
    places = ((cells + 0.5) * STRIDE).reshape(count, kinds, 2)
    return places, np.maximum(values, 0).reshape(count, kinds)


def _at(flat: Maps, row: NDArray[np.int64], column: NDArray[np.int64]) -> NDArray[np.float64]:
    """Values of each map at one cell, the nearest one outside."""
    high, wide = flat.shape[1:]
    inside = np.clip(row, 0, high - 1), np.clip(column, 0, wide - 1)
    return flat[np.arange(len(flat)), *inside].astype(np.float64)


def _quarter(flat: Maps, row: NDArray[np.int64], column: NDArray[np.int64]) -> NDArray[np.float64]:
    """(M, 2): a quarter of a cell towards the higher neighbour in x and y; none of a cell that has only one."""
    high, wide = flat.shape[1:]
    between = np.stack([(column > 0) & (column < wide - 1), (row > 0) & (row < high - 1)], axis=1)
    across = _at(flat, row, column + 1) - _at(flat, row, column - 1)
    down = _at(flat, row + 1, column) - _at(flat, row - 1, column)
    shift: NDArray[np.float64] = np.stack([np.sign(across), np.sign(down)], axis=1) * 0.25 * between
    return shift


def _dark(
    flat: Maps, row: NDArray[np.int64], column: NDArray[np.int64], sigma: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(M, 2) the step to the peak of each smoothed map's logarithm, and where it is known, (M,).

    It is not at the border, nor where there is no peak, nor where it leads farther than a cell.
    """
    high, wide = flat.shape[1:]
    reach = _reach(sigma)
    margin = np.minimum.reduce([row, high - 1 - row, column, wide - 1 - column])
    smoothed = smooth(flat, sigma)

    def at(down: int, across: int) -> NDArray[np.float64]:
        """Logarithms; near the border of the map itself, as smoothing would draw the peak away from it."""
        there = row + down, column + across
        return np.log(np.maximum(np.where(margin < reach + 2, _at(flat, *there), _at(smoothed, *there)), LEAST))

    slope = np.stack([at(0, 1) - at(0, -1), at(1, 0) - at(-1, 0)], axis=1) / 2
    xx = (at(0, 2) - 2 * at(0, 0) + at(0, -2)) / 4
    yy = (at(2, 0) - 2 * at(0, 0) + at(-2, 0)) / 4
    xy = (at(1, 1) - at(-1, 1) - at(1, -1) + at(-1, -1)) / 4
    determinant = xx * yy - xy**2
    peaked = (margin >= 2) & (xx < 0) & (yy < 0) & (determinant > LEAST)
    safe = np.where(peaked, determinant, 1.0)
    step = -np.stack([yy * slope[:, 0] - xy * slope[:, 1], xx * slope[:, 1] - xy * slope[:, 0]], axis=1) / safe[:, None]
    return step, peaked & (np.abs(step) <= 1).all(1)


def smooth(flat: Maps, sigma: float) -> Maps:
    """Maps (M, h, w) smoothed with a Gaussian as wide as those that were learned, along one side and then the other."""
    reach = _reach(sigma)
    kernel = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    high, wide = flat.shape[1:]
    bands = [_band(kernel, side).astype(np.float32) for side in (high, wide)]
    return np.asarray(bands[0] @ flat @ bands[1].T, np.float32)


def _reach(sigma: float) -> int:
    """Cells of the smoothing kernel on each side."""
    return int(np.ceil(REACH * sigma))


def _band(kernel: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """(side, side) the matrix that convolves a line with a kernel, zeros around it."""
    reach = len(kernel) // 2
    band = np.zeros((side, side))
    for offset, weight in zip(range(-reach, reach + 1), kernel, strict=True):
        band += weight * np.eye(side, k=offset)
    return band
