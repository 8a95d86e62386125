"""From an image to the network's input: centre crop, resize, normalise (facts, section 2.3).

    Preprocess(size=224)(image).shape        # (3, 224, 224), float32

Pixels come from Pillow everywhere, so evaluating, predicting, serving and exporting agree bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Interpolation = Literal["bilinear", "bicubic"]
First = Literal["crop", "resize"]
LEAST = 32  # pixels a side that a segmenter sees at least
MOST_WINDOW = 2048  # pixels a side of the squares it looks in: windows are there to spare memory
DIVISOR = 32  # of a detector's input: the coarsest map that its pyramid is built on has this stride
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """The evaluation transform of one set of weights; it travels with them in `config.json`."""

    size: int = 224  # pixels, square
    crop: float | None = None  # share of the short side that is kept; None: size / (size + 32), as published
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    first: First = "crop"  # official: crop, then resize; "resize": the short side first, as torchvision, timm and Gluon

    @property
    def crop_share(self) -> float:
        return self.crop if self.crop is not None else self.size / (self.size + 32)

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """RGB image -> (3, size, size)."""
        return self.normalise(np.asarray(self.pixels(image)))

    def describe(self) -> str:
        """The size of inputs, for people."""
        return f"{self.size} pixels"

    def pixels(self, image: Image.Image) -> Image.Image:
        """The square that the network sees, before normalising."""
        if self.first == "resize":
            return self._resized(image)
        width, height = image.size
        side = self.crop_share * min(width, height)
        left, top = round((width - side) / 2), round((height - side) / 2)
        square = image.crop((left, top, round(left + side), round(top + side)))
        return square.resize((self.size, self.size), RESAMPLING[self.interpolation])

    def _resized(self, image: Image.Image) -> Image.Image:
        """The short side to size / crop, then the centre; rounded as torchvision's Resize and CenterCrop do."""
        width, height = image.size
        short = math.floor(round(self.size / self.crop_share, 6))
        wide, high = (short, short * height // width) if width <= height else (short * width // height, short)
        left, top = round((wide - self.size) / 2), round((high - self.size) / 2)
        whole = image.resize((wide, high), RESAMPLING[self.interpolation])
        return whole.crop((left, top, left + self.size, top + self.size))

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(..., H, W, 3) uint8 -> (..., 3, H, W) float32."""
        return normalise(pixels, self.mean, self.std)


def normalise(pixels: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """(..., H, W, 3) uint8 -> (..., 3, H, W) float32; `mean` and `std` are of channels in 0..1."""
    scale = 1 / (255 * np.asarray(std, np.float32))
    shift = np.asarray(mean, np.float32) / np.asarray(std, np.float32)
    planes = np.moveaxis(pixels, -1, -3)
    scaled = np.empty(planes.shape, np.float32)  # once, and in its final order: half the time
    np.multiply(planes, scale.astype(np.float32)[:, None, None], out=scaled, dtype=np.float32)
    return np.subtract(scaled, shift.astype(np.float32)[:, None, None], out=scaled)


@dataclass(frozen=True, kw_only=True)
class DetectionPreprocess:
    """The evaluation transform of a detector: the short side to `short`, unless the long one would pass `long`.

    DetectionPreprocess(short=800, long=1333)(image).shape      # (3, 800, 1088) of a 640 x 480 photograph

    What a network gets is padded with zeros at the right and bottom, to a multiple of 32 pixels or to `canvas`.
    """

    short: int = 800  # pixels (detectron2's INPUT.MIN_SIZE_TEST)
    long: int = 1333
    canvas: tuple[int, int] | None = None  # height, width of what an exported file takes; the image fits into it
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def scaled_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that an image of this size gets, in detectron2's rounding."""
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

    def describe(self) -> str:
        """The size of inputs, for people."""
        return f"{self.short} pixels, the long side {self.long} at most"

    def pixels(self, image: Image.Image) -> Image.Image:
        """The image in the size that the network sees."""
        return image.resize(self.scaled_size(*image.size), Image.Resampling.BILINEAR)

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """RGB image -> (3, H, W), normalised, zeros where there is no image."""
        inner = normalise(np.asarray(self.pixels(image)), self.mean, self.std)
        padded = np.zeros((3, *self.padded_size(*image.size)), np.float32)
        padded[:, : inner.shape[1], : inner.shape[2]] = inner
        return padded


@dataclass(frozen=True, kw_only=True)
class SegmentationPreprocess:
    """The evaluation transform of a segmenter: the long side to `long`, or the picture as it is.

        SegmentationPreprocess(long=520)(image).shape      # (3, 390, 520) of a 640 x 480 photograph

    What is missing at the right and bottom, up to the window's side (or 32 pixels) or to `canvas`, is black before
    normalising, as the authors pad.
    """

    long: int | None = None  # pixels; None: the picture's own size
    window: int | None = None  # side of the squares that a picture is looked at in; None: the whole at once
    canvas: tuple[int, int] | None = None  # height, width of what an exported file takes; the image fits into it
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def scaled_size(self, width: int, height: int, scale: float = 1.0) -> tuple[int, int]:
        """Width and height that an image of this size gets; of a view, `scale` times that."""
        factor = scale * (self.long / max(width, height) if self.long else 1.0)
        if self.canvas:
            factor = min(factor, self.canvas[0] / height, self.canvas[1] / width)
        wide, high = int(width * factor + 0.5), int(height * factor + 0.5)
        if self.canvas:
            high, wide = min(high, self.canvas[0]), min(wide, self.canvas[1])
        return max(wide, 1), max(high, 1)

    def padded_size(self, width: int, height: int, scale: float = 1.0) -> tuple[int, int]:
        """Height and width of the network's input for an image of this size, before it is cut into windows."""
        if self.canvas:
            return self.canvas
        wide, high = self.scaled_size(width, height, scale)
        least = self.window or LEAST
        return max(high, least), max(wide, least)

    def describe(self) -> str:
        """The size of inputs, for people."""
        size = f"{self.long} pixels the long side" if self.long else "as the pictures are"
        return f"{size}, in squares of {self.window}" if self.window else size

    def pixels(self, image: Image.Image, scale: float = 1.0) -> Image.Image:
        """The image in the size that the network sees."""
        size = self.scaled_size(*image.size, scale)
        return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)

    def __call__(self, image: Image.Image, scale: float = 1.0) -> NDArray[np.float32]:
        """RGB image -> (3, H, W), normalised."""
        inner = np.asarray(self.pixels(image, scale))
        padded = np.zeros((*self.padded_size(*image.size, scale), 3), np.uint8)
        padded[: inner.shape[0], : inner.shape[1]] = inner
        return normalise(padded, self.mean, self.std)


AnyPreprocess = Preprocess | DetectionPreprocess | SegmentationPreprocess
