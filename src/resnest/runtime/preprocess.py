"""Preprocessing of a classifier: centre crop, resize, normalise (facts, section 2.3).

    Preprocess(size=224)(image).shape        # (3, 224, 224), float32

Pixels always come from Pillow, so evaluation, prediction and export agree bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.errors import Range, check_ranges, unknown
from resnest.runtime.decode import MAX_PIXELS, BadImage
from resnest.runtime.raster import FULL, unit_pixels

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MOST_ENLARGED = 32  # times a strip's own pixels, if that is more than a network usually gets
LARGEST = 8192  # pixels of a side; a batch of one such crop fills gigabytes in the network

Interpolation = Literal["bilinear", "bicubic"]
Step = dict[str, Any]  # "do", and its numbers: exporters/kit_files/preprocess.py.txt has what they mean
First = Literal["crop", "resize"]
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class ImageTransform(Protocol):
    """Preprocessing of a task in evaluation: a frozen dataclass, saved with the weights in `config.json`."""

    @property
    def mean(self) -> tuple[float, ...]: ...
    @property
    def std(self) -> tuple[float, ...]: ...
    @property
    def value_range(self) -> float | None: ...  # the value that is 1.0 before mean and std; None: by the data type

    def __call__(self, image: Image.Image, /) -> NDArray[np.float32]: ...  # (C, H, W), normalised
    def pixels(self, image: Image.Image, /) -> Image.Image: ...  # in the size that the network sees
    def scaled_size(self, width: int, height: int, /) -> tuple[int, int]: ...  # width, height of that
    def padded_size(self, width: int, height: int, /) -> tuple[int, int]: ...  # height, width of the network's input
    def describe(self) -> str: ...  # the size, for people
    def steps(self) -> list[Step]: ...  # all that `__call__` does, for other programs


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Preprocessing of a classifier; saved with the weights in `config.json`."""

    size: Annotated[int, Range(1, LARGEST)] = 224  # pixels, square
    crop: Annotated[float | None, Range(0, 1.0, "(]")] = (
        None  # of the short side; None: size / (size + 32), as published
    )
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    value_range: float | None = None  # the value that is 1.0 before mean and std; None: by each picture's data type
    first: First = "crop"  # official: crop, then resize; "resize": the short side first, as torchvision, timm and Gluon

    def __post_init__(self) -> None:
        check_ranges(self, "")
        if self.interpolation not in RESAMPLING:
            raise unknown("interpolation", str(self.interpolation), RESAMPLING)

    @property
    def crop_fraction(self) -> float:
        return self.crop if self.crop is not None else self.size / (self.size + 32)

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """A picture as the model reads it -> (C, size, size). Raises BadImage, without the name of the file."""
        return normalise(unit_pixels(self.pixels(image), self.value_range), self.mean, self.std)

    def describe(self) -> str:
        return f"{self.size} pixels"

    def scaled_size(self, width: int, height: int) -> tuple[int, int]:
        return self.size, self.size

    def padded_size(self, width: int, height: int) -> tuple[int, int]:
        return self.size, self.size

    def steps(self) -> list[Step]:
        square = {"do": "resize", "width": self.size, "height": self.size, "filter": self.interpolation}
        sized: list[Step] = [{"do": "crop", "fraction": self.crop_fraction}, square]
        if self.first == "resize":
            sized = [
                {"do": "resize", "short": self._short, "filter": self.interpolation},
                {"do": "crop", "size": self.size},
            ]
        return [*sized, normalise_step(self)]

    @property
    def _short(self) -> int:
        """The short side that `first="resize"` resizes to."""
        return math.floor(round(self.size / self.crop_fraction, 6))

    def pixels(self, image: Image.Image) -> Image.Image:
        """The square input of the network, before normalisation."""
        if self.first == "resize":
            return self._resized(image)
        width, height = image.size
        side = self.crop_fraction * min(width, height)
        left, top = round((width - side) / 2), round((height - side) / 2)
        square = image.crop((left, top, round(left + side), round(top + side)))
        return square.resize((self.size, self.size), RESAMPLING[self.interpolation])

    def _resized(self, image: Image.Image) -> Image.Image:
        """Resize the short side to size / crop, then centre crop; rounded as torchvision's Resize and CenterCrop."""
        width, height = image.size
        short = self._short
        wide, high = (short, short * height // width) if width <= height else (short * width // height, short)
        check_enlarged((width, height), (wide, high))
        left, top = round((wide - self.size) / 2), round((high - self.size) / 2)
        resized = image.resize((wide, high), RESAMPLING[self.interpolation])
        return resized.crop((left, top, left + self.size, top + self.size))


def check_enlarged(size: tuple[int, int], enlarged: tuple[int, int], *, usual: int = MAX_PIXELS) -> None:
    """Raises BadImage, without the file's name, for a strip of a few bytes that would take gigabytes or minutes.

    Args:
        enlarged: width and height after resizing and padding.
        usual: pixels that the network gets of any picture, however small; a multiple of its own is for large ones.
    """
    own, became = size[0] * size[1], enlarged[0] * enlarged[1]
    limits = (max(MAX_PIXELS, 2 * own), max(usual, MOST_ENLARGED * own))
    if most := next((limit for limit in limits if became > limit), 0):
        into = f"{size[0]} x {size[1]} pixels would become {enlarged[0]} x {enlarged[1]}"
        most_shown = f"{most / 1e6:.{0 if most > 1e7 else 1}f} megapixels"
        raise BadImage("image", f"too long and narrow: {into}, at most {most_shown}")


def normalise(pixels: NDArray[Any], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """(..., H, W, C) -> (..., C, H, W) float32; `mean` and `std` are of channels in 0..1.

    Args:
        pixels: uint8 of 0 to 255, or float32 of 0 to 1, as of `unit_pixels`.
    """
    scale, shift = scale_and_shift(mean, std, full=255 if pixels.dtype == np.uint8 else 1)
    planes = np.moveaxis(pixels, -1, -3)
    scaled = np.empty(planes.shape, np.float32)  # once, and in its final order: half the time
    np.multiply(planes, scale[:, None, None], out=scaled, dtype=np.float32)
    return np.subtract(scaled, shift[:, None, None], out=scaled)


def denormalise(images: NDArray[np.float32], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.uint8]:
    """(..., C, H, W) float32 -> (..., C, H, W) uint8: the pixels that `normalise` was given."""
    scale, shift = scale_and_shift(mean, std)
    pixels = np.rint((images + shift[:, None, None]) / scale[:, None, None]).clip(0, 255)
    return np.asarray(pixels, np.uint8)


def scale_and_shift(
    mean: Sequence[float], std: Sequence[float], *, full: float = 255
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Of pixels from 0 to `full`, by channel: a normalised value is pixel * scale - shift."""
    scale = 1 / (full * np.asarray(std, np.float32))
    shift = np.asarray(mean, np.float32) / np.asarray(std, np.float32)
    return scale.astype(np.float32), shift.astype(np.float32)


def normalise_step(preprocess: ImageTransform) -> Step:
    """The step `normalise`, with the very numbers; without a `value_range` of 8-bit pixels."""
    scale, shift = scale_and_shift(preprocess.mean, preprocess.std, full=preprocess.value_range or FULL["uint8"])
    numbers = {"scale": scale.tolist(), "shift": shift.tolist()}
    return {"do": "normalise", **numbers, "mean": list(preprocess.mean), "std": list(preprocess.std)}
