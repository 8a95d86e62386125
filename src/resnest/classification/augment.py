"""Further augmentation: RandAugment, random erasing, AutoAugment as used for the released weights.

rand_augment(DataSettings(augment="rand"), BICUBIC), GluonAutoAugment()      # transforms of Pillow images
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F2

from resnest.data.settings import DataSettings

BICUBIC = v2.InterpolationMode.BICUBIC


def rand_augment(settings: DataSettings, interpolation: v2.InterpolationMode) -> v2.Transform:
    """torchvision's RandAugment (arXiv 1909.13719): `rand_ops` of 14 operations, all at `rand_magnitude` of 0 to 30.

    Not timm's: its magnitudes go to 10, it runs each operation only half of the time, varies the magnitude, has no
    identity and posterises to as little as 0 bits, so "m7" there is no number here.
    """
    return v2.RandAugment(settings.rand_ops, settings.rand_magnitude, interpolation=interpolation)


def random_erasing(settings: DataSettings) -> v2.Transform:
    """Random erasing: a box of 2 to 33 % gets the mean colour with probability `erase` (arXiv 1708.04896); on uint8."""
    return v2.RandomErasing(settings.erase, value=[round(mean * 255) for mean in settings.mean])


# Twenty-five pairs of (operation, probability, level): arXiv 1805.09501, table 9, as the Gluon code lists them.
# Levels of operations that have none are left out.
POLICY = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 0), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 0)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 0)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 0), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 0)),
    (("equalize", 0.0, 0), ("equalize", 0.8, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 0)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 0)),
    (("shear", 0.6, 5), ("equalize", 1.0, 0)),
    (("color", 0.4, 0), ("equalize", 0.6, 0)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
)


class GluonAutoAugment(v2.Transform):  # type: ignore[misc]
    """AutoAugment with the strengths of the published weights (Gluon transforms.py), for Pillow images.

    torchvision's has the same pairs but milder operations: it posterises to 4 to 6 bits (here 1 or 2), takes level 0 of
    colour as no change (here nearly grey), and draws a sign for colour, contrast and sharpness (here none).
    """

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        chosen = POLICY[int(torch.randint(len(POLICY), ()))]
        draws = torch.rand(len(chosen), 2).tolist()  # whether it happens, and its sign
        steps = [
            (name, level, 1 if sign < 0.5 else -1)
            for (name, probability, level), (happens, sign) in zip(chosen, draws, strict=True)
            if happens < probability
        ]
        return {"steps": steps}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        for name, level, sign in params["steps"]:
            inpt = OPERATIONS[name](inpt, level, sign)
        return inpt


def _factor(level: int) -> float:
    return level * 1.8 / 10 + 0.1


def _shear(image: Image.Image, level: int, sign: int) -> Image.Image:
    amount = sign * level * 0.3 / 10
    return image.transform(image.size, Image.Transform.AFFINE, (1, amount, 0, 0, 1, 0), Image.Resampling.BICUBIC)


# Levels go from 0 to 10; integers where the Gluon code cuts them off
OPERATIONS: dict[str, Callable[[Image.Image, int, int], Image.Image]] = {
    "autocontrast": lambda image, level, sign: F2.autocontrast(image),
    "equalize": lambda image, level, sign: F2.equalize(image),
    "invert": lambda image, level, sign: F2.invert(image),
    "posterize": lambda image, level, sign: F2.posterize(image, 4 - int(level * 4 / 10)),
    "solarize": lambda image, level, sign: F2.solarize(image, 256 - int(level * 256 / 10)),
    "rotate": lambda image, level, sign: image.rotate(sign * int(level * 30 / 10)),  # nearest, as there
    "shear": _shear,
    "color": lambda image, level, sign: F2.adjust_saturation(image, _factor(level)),
    "contrast": lambda image, level, sign: F2.adjust_contrast(image, _factor(level)),
    "sharpness": lambda image, level, sign: F2.adjust_sharpness(image, _factor(level)),
}
