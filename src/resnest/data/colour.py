"""Random colours of training pictures, and their tensors, for photographs and for bands.

    picture = ColorJitter(0.3)(picture)                  # Pillow image in RGB: brightness, contrast, saturation
    to_tensor(picture, value_range=None)            # (C, H, W), uint8 of 0 to 255 or float32 of 0 to 1

Randomness is torch's default generator's, which the data set seeds for every sample.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from resnest.runtime.raster import Raster, unit_pixels


class ColorJitter:
    """Random brightness, contrast and saturation; of a `Raster`, which has no saturation, the first two.

    Args:
        strength: factors are 1 - strength to 1 + strength; 0: pictures stay as they are.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength
        self.of_photographs = v2.ColorJitter(strength, strength, strength) if strength else None

    def __call__(self, image: Image.Image) -> Image.Image:
        if self.of_photographs is None:
            return image
        if isinstance(image, Raster):
            return _jittered(image, self._factor(), self._factor())
        jittered: Image.Image = self.of_photographs(image)
        return jittered

    def _factor(self) -> float:
        least = max(0.0, 1 - self.strength)
        return least + (1 + self.strength - least) * float(torch.rand(()))


def _jittered(raster: Raster, brightness: float, contrast: float) -> Raster:
    """Brightness of all bands times a factor, and the contrast of each around its own mean."""
    pixels = np.asarray(raster, np.float32) * np.float32(brightness)  # (H, W, C)
    means = pixels.mean((0, 1))
    pixels = means + (pixels - means) * np.float32(contrast)
    if raster.kind.startswith("uint"):
        pixels = pixels.clip(0, np.iinfo(raster.kind).max)
    if raster.kind == "uint8":
        pixels = np.rint(pixels).astype(np.uint8)
    return Raster.of(pixels, raster.kind)


def to_tensor(image: Image.Image, value_range: float | None) -> Tensor:
    """A picture as `data.loading.normalise` takes it: (C, H, W)."""
    pixels = np.require(unit_pixels(image, value_range), requirements="W")
    return torch.from_numpy(pixels).permute(2, 0, 1)
