"""What happens to a training image: random crop, flip, colour; torchvision's v2 transforms on Pillow images.

training_transform(DataSettings(), size=128)(image).shape      # (3, 128, 128), uint8
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F2

from resnest.data.augment import GluonAutoAugment, rand_augment, random_erasing
from resnest.data.settings import DataSettings

INTERPOLATION = {"bilinear": v2.InterpolationMode.BILINEAR, "bicubic": v2.InterpolationMode.BICUBIC}

ASPECTS = (3 / 4, 4 / 3)  # of the random crop, width to height
TRIES = 10
# Principal components of ImageNet's colours, in shares of 1: official transforms.py, from AlexNet's fb.resnet.torch
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


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
    if settings.augment == "auto_gluon":  # before the crop, as the released weights had it (facts, section 2.1)
        steps.append(GluonAutoAugment())
    if settings.augment == "auto":
        steps.append(v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET, interpolation=INTERPOLATION["bicubic"]))
    if settings.crop == "height":
        steps.append(HeightCrop(size, settings.min_area, interpolation))
    elif settings.min_area < 1:
        steps.append(v2.RandomResizedCrop(size, scale=(settings.min_area, 1.0), interpolation=interpolation))
    else:
        steps.append(v2.Resize((size, size), interpolation=interpolation))
    if settings.flip:
        steps.append(v2.RandomHorizontalFlip())
    if settings.augment == "rand":  # after the crop, as timm
        steps.append(rand_augment(settings, interpolation))
    if settings.jitter:
        steps.append(v2.ColorJitter(settings.jitter, settings.jitter, settings.jitter))
    steps.append(v2.PILToTensor())
    if settings.lighting:
        steps.append(Lighting(settings.lighting))
    if settings.erase:
        steps.append(random_erasing(settings))
    return v2.Compose(steps)


class HeightCrop(v2.Transform):  # type: ignore[misc]
    """EfficientNet's random crop, used for crops of 320 pixels and more (facts, section 2.1).

    Draws the shape first and then the height evenly between those of the smallest and the largest area that fit;
    drawing the area evenly, as RandomResizedCrop does, gives larger crops. After ten tries without one that fits,
    the centre as in evaluation.
    """

    def __init__(self, size: int, min_area: float, interpolation: v2.InterpolationMode) -> None:
        super().__init__()
        self.size = size
        self.min_area = min_area
        self.interpolation = interpolation

    def make_params(self, flat_inputs: list[Any]) -> dict[str, int]:
        height, width = F2.get_size(flat_inputs[0])
        for _ in range(TRIES):
            aspect = _between(*ASPECTS)  # width / height
            lowest = math.sqrt(self.min_area * width * height / aspect)
            highest = min(math.sqrt(width * height / aspect), width / aspect, height)
            high = round(_between(min(lowest, highest), highest))
            wide = round(high * aspect)
            if self.min_area * width * height <= wide * high and wide <= width and high <= height:
                top, left = round(_between(0, height - high)), round(_between(0, width - wide))
                return {"top": top, "left": left, "height": high, "width": wide}
        side = round(min(width, height) * self.size / (self.size + 32))
        return {"top": (height - side) // 2, "left": (width - side) // 2, "height": side, "width": side}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        size = [self.size, self.size]
        return F2.resized_crop(inpt, **params, size=size, interpolation=self.interpolation, antialias=True)


class Lighting(v2.Transform):  # type: ignore[misc]
    """Adds the principal colours of ImageNet in random amounts: (3, H, W) uint8 -> uint8."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        amounts = torch.randn(3) * self.std * torch.tensor(EIGENVALUES)
        shift = torch.tensor(EIGENVECTORS) @ amounts * 255  # (3,): red, green, blue
        return (inpt + shift[:, None, None]).round().clamp(0, 255).to(torch.uint8)


def _between(low: float, high: float) -> float:
    """From torch's generator, which is seeded for every sample."""
    return low + (high - low) * float(torch.rand(()))


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(N, 3, H, W) uint8 -> float32 in channels_last."""
    scaled = images.contiguous(memory_format=torch.channels_last).float().div_(255)
    normal: Tensor = F2.normalize(scaled, list(mean), list(std), inplace=True)
    return normal
