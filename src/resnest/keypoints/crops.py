"""Crops around an object's box: the window in its picture, and the affine map from there to the network's input.

    frame = Frame(width=192, height=256)
    left, top, right, bottom = frame.window((120, 80, 180, 240))       # whole pixels, perhaps outside the picture
    view = Affine.of(centre, size, frame, turn=30)                     # for training: turned, scaled, moved
    view.points(points), view.inverse.points(found), view.pixels(picture)

Coordinates are continuous: the middle of a picture's first pixel is (0.5, 0.5), its corners are (0, 0) and (width,
height). A mirrored picture then has x' = width - x, and a heatmap of a quarter of the side x' = x / 4, without the
shifts that other conventions need (unbiased data processing, arXiv 1911.07524).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Points = NDArray[np.float64]  # (..., 2)
SMALLEST = 1.0  # pixels of a side: a box of less is taken for one of a pixel


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The network's input, and how much of the surroundings it shows."""

    width: int = 192  # pixels (SimpleBaseline's 256 x 192)
    height: int = 256
    padding: float = 1.25  # times the box (SimpleBaseline, lib/dataset/coco.py)

    def region(self, box: Sequence[float] | Points) -> tuple[Points, Points]:
        """Centre and size, width and height, of what is seen of a box x1, y1, x2, y2: with the input's proportions."""
        x1, y1, x2, y2 = map(float, box)
        wide, high = max(x2 - x1, SMALLEST), max(y2 - y1, SMALLEST)
        scale = max(wide / self.width, high / self.height) * self.padding
        return np.array([(x1 + x2) / 2, (y1 + y2) / 2]), np.array([self.width, self.height]) * scale

    def window(self, box: Sequence[float] | Points) -> tuple[int, int, int, int]:
        """The same in whole pixels, at least one."""
        centre, size = self.region(box)
        left, top = (round(float(side)) for side in centre - size / 2)
        right, bottom = (round(float(side)) for side in centre + size / 2)
        return left, top, max(right, left + 1), max(bottom, top + 1)


@dataclass(frozen=True, eq=False)
class Affine:
    """A map from a picture to the network's input of this size."""

    matrix: NDArray[np.float64]  # (2, 3)
    size: tuple[int, int]  # width, height

    @classmethod
    def of(cls, centre: Points, size: Points, frame: Frame, *, turn: float = 0.0, mirror: bool = False) -> Affine:
        """Of a region around `centre`, turned by `turn` degrees clockwise, then mirrored."""
        scale = frame.width / float(size[0])
        angle = math.radians(turn)
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        linear = np.array([[cos, -sin], [sin, cos]])
        middle = np.array([frame.width, frame.height]) / 2
        matrix = np.column_stack([linear, middle - linear @ centre])
        if mirror:
            matrix[0] = [0, 0, frame.width] - matrix[0]
        return cls(matrix, (frame.width, frame.height))

    @property
    def inverse(self) -> Affine:
        """From the input to the picture."""
        linear = np.linalg.inv(self.matrix[:, :2])
        return Affine(np.column_stack([linear, -linear @ self.matrix[:, 2]]), self.size)

    @property
    def scale(self) -> float:
        """Pixels of the input for one of the picture."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))

    def points(self, points: NDArray[np.floating]) -> Points:
        moved: Points = points @ self.matrix[:, :2].T + self.matrix[:, 2]
        return moved

    def pixels(self, picture: Image.Image) -> Image.Image:
        """What is seen of the picture, bilinear; black outside. Where it becomes smaller, it is averaged before."""
        back = self.inverse
        corners = np.array([(0, 0), (1, 0), (0, 1), (1, 1)]) * self.size
        places = back.points(corners)
        left, top = np.floor(places.min(0)).astype(int) - 1
        right, bottom = np.ceil(places.max(0)).astype(int) + 1
        cut = picture.crop((int(left), int(top), int(right), int(bottom)))
        shrunk = np.array([1.0, 1.0])
        if self.scale < 1:
            small = [max(1, round(side * self.scale)) for side in cut.size]
            shrunk = np.array(small) / cut.size
            cut = cut.resize((small[0], small[1]), Image.Resampling.BILINEAR)
        matrix = back.matrix.copy()
        matrix[:, 2] -= (left, top)
        matrix *= shrunk[:, None]
        return cut.transform(
            self.size, Image.Transform.AFFINE, tuple(matrix.ravel().tolist()), Image.Resampling.BILINEAR
        )
