"""Training transforms with masks: resize, flip, colour, pad, crop (PyTorch-Encoding; facts, section 4.4).

    image, mask = PixelTransform(DataSettings(), SegmentationSettings())(image, mask)     # (3, 480, 480), (480, 480)

The crop is drawn first and only its region is resized, with the same pixels as resizing the image and then cropping.
"""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from resnest.data.colour import ColorJitter
from resnest.data.loading import TrainingDataset
from resnest.data.order import random_int
from resnest.data.settings import DataSettings
from resnest.errors import ResnestError
from resnest.runtime.raster import unit_pixels
from resnest.runtime.tiles import Box
from resnest.segmentation.card import IGNORED, LEAST
from resnest.segmentation.mask_stacks import MaskStackSamples
from resnest.segmentation.paired import PairedSamples
from resnest.segmentation.recipes.settings import SegmentationSettings
from resnest.segmentation.windows import WindowedPair, is_large, open_pair

Transpose = Image.Transpose


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """A crop of an image, its resized size, and whether it is flipped."""

    box: tuple[float, float, float, float]  # left, top, right, bottom
    width: int
    height: int
    mirror: bool = False  # left and right
    flip_vertical: bool = False  # top and bottom

    def window(self, size: tuple[int, int]) -> Box:
        """The pixels of a picture of this size that decide the crop: its own, and half a filter's width around them."""
        spans = []
        for axis, length in ((0, self.width), (1, self.height)):
            start, stop = self.box[axis], self.box[axis + 2]
            support = max(1.0, (stop - start) / length)  # of Pillow's bilinear filter, antialiased
            spans.append((max(0, math.floor(start - support)), min(size[axis], math.ceil(stop + support))))
        (left, right), (top, bottom) = spans
        return left, top, right, bottom

    def within(self, window: Box) -> Geometry:
        """The same of a picture that is this window alone."""
        sides = np.array(self.box, np.float32)  # as Pillow takes a box; so moved by whole pixels it is exactly the same
        left, top, right, bottom = (sides.astype(np.float64) - [*window[:2], *window[:2]]).tolist()
        return replace(self, box=(left, top, right, bottom))

    def __call__(self, image: Image.Image, resampling: Image.Resampling) -> Image.Image:
        cut = image.resize((self.width, self.height), resampling, self.box)
        cut = cut.transpose(Transpose.FLIP_LEFT_RIGHT) if self.mirror else cut
        return cut.transpose(Transpose.FLIP_TOP_BOTTOM) if self.flip_vertical else cut


class PixelTransform:
    """An image and its mask -> (C, S, S), bytes or floats, and (S, S) uint8, of masks (K, H, W) (K, S, S).

    By torch's default generator.
    """

    def __init__(self, data: DataSettings, segmentation: SegmentationSettings) -> None:
        self.data = data
        self.segmentation = segmentation
        self.colour = ColorJitter(data.jitter)

    def __call__(self, image: Image.Image, mask: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        cut = self.draw(*image.size)
        if not is_large(image.size):
            return self._made(cut, image, mask)
        left, top, right, bottom = window = cut.window(image.size)
        return self._made(cut.within(window), image.crop(window), mask[..., top:bottom, left:right])

    def of_window(self, pair: WindowedPair) -> tuple[Tensor, Tensor]:
        """The same of files of which only the crop's window is read."""
        cut = self.draw(*pair.size)
        window = cut.window(pair.size)
        return self._made(cut.within(window), *pair.read(window))

    def _made(self, cut: Geometry, image: Image.Image, mask: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """Of a large picture from the pixels that decide the crop: Pillow rounds by the size of what it gets."""
        seen = unit_pixels(self.colour(cut(image, Image.Resampling.BILINEAR)), self.data.value_range)  # (H, W, C)
        side = self.segmentation.crop
        pixels = np.zeros((side, side, seen.shape[2]), seen.dtype)
        pixels[: cut.height, : cut.width] = seen
        labels = np.full((*mask.shape[:-2], side, side), IGNORED, np.uint8)
        for place in np.ndindex(mask.shape[:-2]):
            seen_mask = cut(Image.fromarray(mask[place]), Image.Resampling.NEAREST)
            labels[place][: cut.height, : cut.width] = np.asarray(seen_mask)
        return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(labels)

    def draw(self, width: int, height: int) -> Geometry:
        """Draw the long side's length, then the position of the crop in the resized image."""
        low, high = (int(self.segmentation.base * factor) for factor in self.segmentation.scale)
        scale = (low + random_int(high - low + 1)) / max(width, height)
        wide, tall = max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))
        seen_wide, seen_tall = min(wide, self.segmentation.crop), min(tall, self.segmentation.crop)
        left, top = random_int(wide - seen_wide + 1), random_int(tall - seen_tall + 1)
        return Geometry(
            box=(
                left * width / wide,
                top * height / tall,
                (left + seen_wide) * width / wide,
                (top + seen_tall) * height / tall,
            ),
            width=seen_wide,
            height=seen_tall,
            mirror=self.data.flip and random_int(2) == 1,
            flip_vertical=self.segmentation.flip_vertical and random_int(2) == 1,
        )


# --- Training dataset of images with masks: augmented samples and their batches ---


class SegmentationDataset(TrainingDataset):
    """Labels are (N, H, W) or (N, K, H, W) uint8, 255 for ignored pixels."""

    samples: PairedSamples

    def __init__(
        self, samples: PairedSamples, data: DataSettings, segmentation: SegmentationSettings, *, seed: int
    ) -> None:
        for name in ("balance", "repeat_threshold"):
            if value := getattr(data, name):
                raise ResnestError(
                    f"data.{name}={value}: what a mask shows is not known before it is read. Set data.{name}=0; rare"
                    " classes weigh more with segmentation.class_weights=frequency"
                )
        super().__init__(samples, seed=seed)
        self.transform = PixelTransform(data, segmentation)

    def augment(self, index: int, epoch: int) -> tuple[Tensor, Tensor]:
        if pair := open_pair(self.samples, index):
            with closing(pair):
                return self.transform.of_window(pair)
        return self.transform(*self.samples.pair(index))

    def stack_targets(self, targets: list[Tensor]) -> Tensor:
        if targets:
            return torch.stack(targets)
        planes = [len(self.samples.class_names)] if isinstance(self.samples, MaskStackSamples) else []
        return torch.empty(0, *planes, LEAST, LEAST, dtype=torch.uint8)
