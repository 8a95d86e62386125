"""What happens to a training image: random crop, flip, colour; torchvision's v2 transforms on Pillow images.

training_transform(DataSettings(), size=128)(image).shape      # (3, 128, 128), uint8
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F2

from resnest.data.settings import DataSettings

INTERPOLATION = {"bilinear": v2.InterpolationMode.BILINEAR, "bicubic": v2.InterpolationMode.BICUBIC}


def training_transform(settings: DataSettings, size: int) -> v2.Transform:
    """Pillow RGB -> (3, size, size) uint8, to be normalised in batches on the device.

    Randomness comes from torch's default generator, which the data set seeds for every sample.
    """
    interpolation = INTERPOLATION[settings.interpolation]
    steps: list[Any] = []
    if settings.shift:
        steps.append(v2.RandomAffine(degrees=0, translate=(settings.shift, settings.shift)))
    if settings.augment == "trivial":
        steps.append(v2.TrivialAugmentWide(interpolation=interpolation))
    if settings.min_area < 1:
        steps.append(v2.RandomResizedCrop(size, scale=(settings.min_area, 1.0), interpolation=interpolation))
    else:
        steps.append(v2.Resize((size, size), interpolation=interpolation))
    if settings.flip:
        steps.append(v2.RandomHorizontalFlip())
    if settings.jitter:
        steps.append(v2.ColorJitter(settings.jitter, settings.jitter, settings.jitter))
    return v2.Compose([*steps, v2.PILToTensor()])


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(N, 3, H, W) uint8 -> float32 in channels_last."""
    scaled = images.contiguous(memory_format=torch.channels_last).float().div_(255)
    normal: Tensor = F2.normalize(scaled, list(mean), list(std), inplace=True)
    return normal
