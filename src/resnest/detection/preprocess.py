"""Preprocessing of a detector: image resized by its short side, normalised, padded. No torch.

DetectionPreprocess(short=800, long=1333)(image).shape      # (3, 800, 1088) of a 640 x 480 photograph
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD, normalise

DIVISOR = 32  # of a detector's input: the coarsest map that its pyramid is built on has this stride


@dataclass(frozen=True, kw_only=True)
class DetectionPreprocess:
    """Preprocessing of a detector: resized to a short side of `short`, and a long side of at most `long`.

    DetectionPreprocess(short=800, long=1333)(image).shape      # (3, 800, 1088) of a 640 x 480 photograph

    What a network gets is padded with zeros at the right and bottom, to a multiple of 32 pixels or to `canvas`.
    """

    short: int = 800  # pixels (detectron2's INPUT.MIN_SIZE_TEST)
    long: int = 1333
    canvas: tuple[int, int] | None = None  # height, width of what an exported file takes; the image fits into it
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def describe(self) -> str:
        """The size, for people."""
        return f"{self.short} pixels, the long side {self.long} at most"

    def scaled_size(self, width: int, height: int) -> tuple[int, int]:
        """Resized width and height of an image of this size, with detectron2's rounding."""
        short, long = min(width, height), max(width, height)
        scale = min(self.short / short, self.long / long)
        if self.canvas:
            scale = min(scale, self.canvas[0] / height, self.canvas[1] / width)
        wide, high = int(width * scale + 0.5), int(height * scale + 0.5)
        if self.canvas:
            high, wide = min(high, self.canvas[0]), min(wide, self.canvas[1])
        return max(wide, 1), max(high, 1)

    def padded_size(self, width: int, height: int) -> tuple[int, int]:
        """Height and width of the network's input for an image of this size."""
        if self.canvas:
            return self.canvas
        wide, high = self.scaled_size(width, height)
        return -(-high // DIVISOR) * DIVISOR, -(-wide // DIVISOR) * DIVISOR

    def pixels(self, image: Image.Image) -> Image.Image:
        """The resized image, before normalisation."""
        return image.resize(self.scaled_size(*image.size), Image.Resampling.BILINEAR)

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """RGB image -> (3, H, W), normalised, zero-padded."""
        inner = normalise(np.asarray(self.pixels(image)), self.mean, self.std)
        padded = np.zeros((3, *self.padded_size(*image.size)), np.float32)
        padded[:, : inner.shape[1], : inner.shape[2]] = inner
        return padded
