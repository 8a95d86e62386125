"""Preprocessing of a segmenter: image resized by its long side or unchanged, normalised, padded. No torch.

SegmentationPreprocess(long=520)(image).shape      # (3, 390, 520) of a 640 x 480 photograph
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD, normalise

LEAST = 32  # pixels a side that a segmenter sees at least
MOST_WINDOW = 2048  # pixels a side of the squares it looks in: windows are there to spare memory


@dataclass(frozen=True, kw_only=True)
class SegmentationPreprocess:
    """Preprocessing of a segmenter: resized to a long side of `long`, or unchanged.

        SegmentationPreprocess(long=520)(image).shape      # (3, 390, 520) of a 640 x 480 photograph

    What is missing at the right and bottom, up to the window's side (or 32 pixels) or to `canvas`, is black before
    normalising, as the authors pad.
    """

    long: int | None = None  # pixels; None: the picture's own size
    window: int | None = None  # side of the sliding windows; None: the full picture at once
    canvas: tuple[int, int] | None = None  # height, width of what an exported file takes; the image fits into it
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def describe(self) -> str:
        """The size, for people."""
        size = f"{self.long} pixels the long side" if self.long else "as the pictures are"
        return f"{size}, in squares of {self.window}" if self.window else size

    def scaled_size(self, width: int, height: int, scale: float = 1.0) -> tuple[int, int]:
        """Resized width and height of an image of this size; for a view times `scale`."""
        factor = scale * (self.long / max(width, height) if self.long else 1.0)
        if self.canvas:
            factor = min(factor, self.canvas[0] / height, self.canvas[1] / width)
        wide, high = int(width * factor + 0.5), int(height * factor + 0.5)
        if self.canvas:
            high, wide = min(high, self.canvas[0]), min(wide, self.canvas[1])
        return max(wide, 1), max(high, 1)

    def padded_size(self, width: int, height: int, scale: float = 1.0) -> tuple[int, int]:
        """Height and width of the network's input for an image of this size, before windows."""
        if self.canvas:
            return self.canvas
        wide, high = self.scaled_size(width, height, scale)
        least = self.window or LEAST
        return max(high, least), max(wide, least)

    def pixels(self, image: Image.Image, scale: float = 1.0) -> Image.Image:
        """The resized image, before normalisation."""
        size = self.scaled_size(*image.size, scale)
        return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)

    def __call__(self, image: Image.Image, scale: float = 1.0) -> NDArray[np.float32]:
        """RGB image -> (3, H, W), normalised."""
        inner = np.asarray(self.pixels(image, scale))
        padded = np.zeros((*self.padded_size(*image.size, scale), 3), np.uint8)
        padded[: inner.shape[0], : inner.shape[1]] = inner
        return normalise(padded, self.mean, self.std)
