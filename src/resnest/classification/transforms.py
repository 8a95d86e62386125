"""Training images: random crop, flip, colour, RandAugment, random erasing; and the dataset that gives them.

training_transform(DataSettings(), size=128)(content).shape      # bytes of a file -> (3, 128, 128), uint8

The crop is drawn first, from the size in the file's header, and a JPEG is then decoded at the smallest fraction that
leaves the crop as many pixels as it is resized to (`data.reduced_decode`). Augmentation of the full image still comes
before cropping, on that smaller image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F2

from resnest.data.colour import ColorJitter, to_tensor
from resnest.data.loading import TrainingDataset, labels_to_tensor
from resnest.data.samples import LabelledSamples
from resnest.data.settings import DataSettings
from resnest.runtime.bands import Bands, read_for_crop
from resnest.runtime.decode import Box
from resnest.runtime.preprocess import RESAMPLING
from resnest.runtime.raster import Raster

# --- Further augmentation: RandAugment, random erasing, AutoAugment as used for the released weights ---

BICUBIC = v2.InterpolationMode.BICUBIC


def rand_augment(settings: DataSettings, interpolation: v2.InterpolationMode) -> v2.Transform:
    """torchvision's RandAugment (arXiv 1909.13719): `rand_ops` of 14 operations, all at `rand_magnitude` of 0 to 30.

    Not timm's: its magnitudes go to 10, it runs each operation only half of the time, varies the magnitude, has no
    identity and posterises to as little as 0 bits, so "m7" there is no number here.
    """
    return v2.RandAugment(settings.rand_ops, settings.rand_magnitude, interpolation=interpolation)


def random_erasing(settings: DataSettings) -> v2.Transform:
    """Random erasing: a box of 2 to 33 % gets the mean colour with probability `erase` (arXiv 1708.04896)."""
    return RandomErasing(settings)


class RandomErasing:
    """Of uint8 or float32 (C, H, W)."""

    def __init__(self, settings: DataSettings) -> None:
        self.of_bytes = v2.RandomErasing(settings.erase, value=[round(mean * 255) for mean in settings.mean])
        self.of_floats = v2.RandomErasing(settings.erase, value=list(settings.mean))

    def __call__(self, image: Tensor) -> Tensor:
        erased: Tensor = (self.of_bytes if image.dtype == torch.uint8 else self.of_floats)(image)
        return erased


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


INTERPOLATION = {"bilinear": v2.InterpolationMode.BILINEAR, "bicubic": v2.InterpolationMode.BICUBIC}

ASPECTS = (3 / 4, 4 / 3)  # of the random crop, width to height
TRIES = 10
# Principal components of ImageNet's colours, in shares of 1: official transforms.py, from AlexNet's fb.resnet.torch
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


def training_transform(settings: DataSettings, size: int) -> TrainingTransform:
    """Bytes of an image -> (C, size, size) of bytes or floats, to be normalised in batches on the device.

    Randomness comes from torch's default generator, which the data set seeds for every sample.
    """
    # TrivialAugment shifts by up to 32 pixels, of whatever size the image has: in full, or they would become more
    reduced = settings.reduced_decode and settings.augment != "trivial"
    return TrainingTransform(
        size=size,
        bands=settings.bands,
        crop=_crop(settings, size),
        at_least=size if reduced else None,
        resampling=RESAMPLING[settings.interpolation],
        before=_before(settings),
        pixels=_pixels(settings),
        after=_after(settings),
    )


def _before(settings: DataSettings) -> list[Any]:
    """Transforms of the full image, in Pillow."""
    interpolation = INTERPOLATION[settings.interpolation]
    steps: list[Any] = []
    if settings.shift:
        steps.append(RandomAffine(settings.shift))
    if settings.augment == "trivial":
        steps.append(v2.TrivialAugmentWide(interpolation=interpolation))
    if settings.augment == "auto_gluon":  # before the crop, as the released weights had it (facts, section 2.1)
        steps.append(GluonAutoAugment())
    if settings.augment == "auto":
        steps.append(v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET, interpolation=INTERPOLATION["bicubic"]))
    return steps


def _pixels(settings: DataSettings) -> list[Any]:
    """Transforms of the crop, in Pillow."""
    steps: list[Any] = []
    if settings.flip:
        steps.append(mirror)
    if settings.augment == "rand":  # after the crop, as timm
        steps.append(rand_augment(settings, INTERPOLATION[settings.interpolation]))
    if settings.jitter:
        steps.append(ColorJitter(settings.jitter))
    return steps


def _after(settings: DataSettings) -> list[Any]:
    """Transforms of the crop, as a tensor."""
    steps: list[Any] = []
    if settings.lighting:
        steps.append(Lighting(settings.lighting))
    if settings.erase:
        steps.append(random_erasing(settings))
    return steps


def takes_bands(step: object) -> bool:
    """Whether a transform is for pictures of any bands; the others are for photographs."""
    return step is mirror or isinstance(step, RandomAffine | ColorJitter | RandomErasing)


@dataclass(frozen=True, kw_only=True)
class TrainingTransform:
    """Draws a crop, decodes, augments the full image, crops and resizes, augments the crop.

    For a `Raster`, the transforms that are for photographs alone are left out.
    """

    size: int
    bands: Bands
    crop: Callable[[int, int], Box]  # from the width and height of the upright image
    at_least: int | None  # pixels a side that the crop keeps when decoded at a fraction of its size; none: in full
    resampling: Image.Resampling
    before: Sequence[Callable[[Image.Image], Image.Image]]
    pixels: Sequence[Callable[[Image.Image], Image.Image]]
    after: Sequence[Callable[[Tensor], Tensor]]

    def __call__(self, content: bytes, name: str = "image") -> Tensor:
        """Raises BadImage."""
        image, box = read_for_crop(content, self.crop, self.bands, at_least=self.at_least, name=name)
        all_fit = not isinstance(image, Raster)
        for step in self.before:
            image = step(image) if all_fit or takes_bands(step) else image
        image = resized_crop(image, box, self.size, self.resampling)
        for step in self.pixels:
            image = step(image) if all_fit or takes_bands(step) else image
        tensor = to_tensor(image, self.bands.value_range)  # (C, size, size)
        for change in self.after:
            tensor = change(tensor) if all_fit or takes_bands(change) else tensor
        return tensor


def _crop(settings: DataSettings, size: int) -> Callable[[int, int], Box]:
    if settings.crop == "height":
        return HeightCrop(size, settings.min_area)
    return AreaCrop(settings.min_area) if settings.min_area < 1 else full_image


def full_image(width: int, height: int) -> Box:
    """The full image, without a crop."""
    return 0, 0, width, height


class AreaCrop:
    """torchvision's RandomResizedCrop, with its random numbers: area, then aspect ratio, ten tries, else the centre."""

    def __init__(self, min_area: float) -> None:
        self.rule = v2.RandomResizedCrop(1, scale=(min_area, 1.0), ratio=ASPECTS)

    def __call__(self, width: int, height: int) -> Box:
        drawn = self.rule.make_params([torch.empty(3, height, width, device="meta")])
        return drawn["left"], drawn["top"], drawn["left"] + drawn["width"], drawn["top"] + drawn["height"]


class HeightCrop:
    """EfficientNet's random crop, used for crops of 320 pixels and more (facts, section 2.1).

    Draws the shape first and then the height evenly between those of the smallest and the largest area that fit;
    drawing the area evenly, as RandomResizedCrop does, gives larger crops. After ten tries without one that fits,
    the centre as in evaluation.
    """

    def __init__(self, size: int, min_area: float) -> None:
        self.size = size
        self.min_area = min_area

    def __call__(self, width: int, height: int) -> Box:
        for _ in range(TRIES):
            aspect = _between(*ASPECTS)  # width / height
            lowest = math.sqrt(self.min_area * width * height / aspect)
            highest = min(math.sqrt(width * height / aspect), width / aspect, height)
            high = round(_between(min(lowest, highest), highest))
            wide = round(high * aspect)
            if self.min_area * width * height <= wide * high and wide <= width and high <= height:
                top, left = round(_between(0, height - high)), round(_between(0, width - wide))
                return left, top, left + wide, top + high
        side = round(min(width, height) * self.size / (self.size + 32))
        left, top = (width - side) // 2, (height - side) // 2
        return left, top, left + side, top + side


def resized_crop(image: Image.Image, box: Box, size: int, resampling: Image.Resampling) -> Image.Image:
    """`box` of the image as a square; for integer boxes equal to cropping and resizing, bit for bit."""
    left, top = math.floor(box[0]), math.floor(box[1])
    around = image.crop((left, top, math.ceil(box[2]), math.ceil(box[3])))
    return around.resize((size, size), resampling, (box[0] - left, box[1] - top, box[2] - left, box[3] - top))


class RandomAffine:
    """Moves an image by up to a share of each side, with zeros where nothing is."""

    def __init__(self, most: float) -> None:
        self.most = most
        self.of_photographs = v2.RandomAffine(degrees=0, translate=(most, most))

    def __call__(self, image: Image.Image) -> Image.Image:
        if not isinstance(image, Raster):
            shifted: Image.Image = self.of_photographs(image)
            return shifted
        left, top = (round(_between(-self.most, self.most) * side) for side in image.size)
        return image.crop((left, top, left + image.width, top + image.height))


def mirror(image: Image.Image) -> Image.Image:
    """Horizontal flip, half of the time."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(1) < 0.5 else image


class Lighting(v2.Transform):  # type: ignore[misc]
    """PCA lighting noise: adds ImageNet's principal colours in random amounts: (3, H, W) uint8 -> uint8."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        amounts = torch.randn(3) * self.std * torch.tensor(EIGENVALUES)
        shift = torch.tensor(EIGENVECTORS) @ amounts * 255  # (3,): red, green, blue
        return (inpt + shift[:, None, None]).round().clamp(0, 255).to(torch.uint8)


def _between(low: float, high: float) -> float:
    """A uniform number by torch's generator, which is seeded for every sample."""
    return low + (high - low) * float(torch.rand(()))


# --- Training dataset of labelled images: augmented samples and their batches ---


class ClassificationDataset(TrainingDataset):
    """Random crops and colours; labels are (N,) int64, or (N, K) float32 if multi-label."""

    samples: LabelledSamples

    def __init__(self, samples: LabelledSamples, settings: DataSettings, *, seed: int, epochs: int) -> None:
        super().__init__(samples, seed=seed)
        self.settings, self.epochs = settings, epochs

    def augment(self, index: int, epoch: int) -> tuple[Tensor, Any]:
        transform = _transform(self.settings, self.settings.size_at(epoch, self.epochs))
        return transform(self.samples.read(index), self.samples.keys[index]), self.samples.labels[index]

    def stack_targets(self, targets: list[Any]) -> Tensor:
        return labels_to_tensor(targets)


_transform = cache(training_transform)
