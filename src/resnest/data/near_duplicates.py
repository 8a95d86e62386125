"""Pictures of one part that look almost like one of the other part: other sizes, other compression, the next frame.

    prints = Prints()
    prints.add(index, image)                        # of each decoded picture
    find_pairs(train_prints, val_prints)            # [Pair(train=3, val=0, likeness=0.99), ...]

Pictures are shrunk to 16 x 16 cells. Two are alike if the cells correlate and if their difference hashes (whether a
cell is brighter than the one before it, dHash) are near each other: the one alone takes any two skies for the same, the
other any two dark pictures. Nearly uniform pictures, such as black frames, have nothing to compare.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 16  # cells
# Chosen by looking at pairs of four data sets (docs/data.md): those that differ in more have nothing in common
ALIKE = 0.95  # correlation of the cells
NEAR = 48  # bits of 256 of the hashes that may differ
UNIFORM = 3.0  # standard deviation of the cells, of 255, below which a picture is nearly uniform
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, as Pillow converts to grey (ITU-R BT.601)
CHUNK = 2**23  # comparisons at a time: 32 MB
MOST_TRIED = 50  # training pictures whose hash is compared with one of validation


class Pair(NamedTuple):
    """A validation picture and the training picture that is the most like it."""

    train: int
    val: int
    likeness: float  # correlation


class Prints:
    """What is kept of each picture of a part: some 300 bytes."""

    def __init__(self) -> None:
        self.indices: list[int] = []
        self.hashes: list[NDArray[np.uint8]] = []  # 256 bits each
        self.cells: list[NDArray[np.uint8]] = []  # (SIDE * SIDE,) each
        self.uniform: list[int] = []  # indices of nearly uniform pictures

    def add(self, index: int, image: Any) -> None:
        cells = shrunk(image)
        if cells.std() < UNIFORM:
            self.uniform.append(index)
            return
        self.indices.append(index)
        self.hashes.append(np.packbits(cells[:, 1:] > cells[:, :-1]))
        self.cells.append(cells[:, 1:].round().astype(np.uint8).ravel())


def shrunk(image: Any) -> NDArray[np.float64]:
    """The mean brightness of the cells, (SIDE, SIDE + 1), from 0 to 255."""
    small = np.asarray(image.resize((SIDE + 1, SIDE), Image.Resampling.BOX), np.float64)
    if small.ndim == 2:
        return small
    brightness: NDArray[np.float64] = small @ LUMA if small.shape[2] == 3 else small.mean(2)
    return brightness


def find_pairs(train: Prints, val: Prints) -> list[Pair]:
    """The validation pictures that look like a training picture, each with the one most like it; most alike first.

    Every picture is compared with every one of the other part: 80,000 with 20,000 take some ten seconds and 200 MB.
    """
    if not train.indices or not val.indices:
        return []
    theirs = _normalised(train.cells)
    pairs = []
    step = max(1, CHUNK // len(train.indices))
    for first in range(0, len(val.indices), step):
        likeness = _normalised(val.cells[first : first + step]) @ theirs.T  # (V, T)
        for row in np.flatnonzero(likeness.max(1) >= ALIKE).tolist():
            number, found = first + row, np.flatnonzero(likeness[row] >= ALIKE)
            for other in found[np.argsort(-likeness[row, found])][:MOST_TRIED].tolist():
                if np.bitwise_count(val.hashes[number] ^ train.hashes[other]).sum() <= NEAR:
                    pairs.append(Pair(train.indices[other], val.indices[number], float(likeness[row, other])))
                    break
    return sorted(pairs, key=lambda pair: (-pair.likeness, pair.val))


def _normalised(cells: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """(N, SIDE * SIDE) of mean 0 and length 1, so that products are correlations."""
    rows = np.array(cells, np.float32)
    rows -= rows.mean(1, keepdims=True)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return rows
