"""Settings of data: format, crop, augmentation. Part of every recipe; needs no torch.

DataSettings(size=128, start_size=64, min_area=0.35)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from resnest.errors import ResnestError
from resnest.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD, Interpolation, Preprocess

LARGEST = 8192  # pixels; a batch of one such crop fills gigabytes in the network


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Settings of reading, cropping and augmenting images."""

    format: str = "auto"  # one of data.finding.FORMATS, such as folder, coco, voc or masks; auto looks
    val_share: float = 0.2  # share of each class held out where the data has no validation split
    size: int = 224  # training crop, pixels
    start_size: int | None = None  # crop of the first epoch; grows evenly to `size` (progressive resizing)
    eval_size: int | None = None  # evaluation crop, pixels; none: `size`
    eval_crop: float | None = None  # share of the short side; none: eval_size / (eval_size + 32), as published
    interpolation: Interpolation = "bilinear"
    eval_interpolation: Interpolation | None = None  # none: `interpolation`
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    min_area: float = 0.08  # smallest area fraction of the random crop; 1: full image, no crop
    crop: Literal["area", "height"] = (
        "area"  # what is drawn evenly: the crop's area, or its height as EfficientNet does
    )
    flip: bool = True  # mirror left and right; wrong for digits and text
    shift: float = 0.0  # random shift, share of the side
    jitter: float = 0.0  # brightness, contrast and saturation, each by up to this share
    lighting: float = 0.0  # PCA colour noise, standard deviation (AlexNet, section 4.1)
    # TrivialAugment (arXiv 2103.10158), AutoAugment (1805.09501), the same as the published weights had it, RandAugment
    augment: Literal["none", "trivial", "auto", "auto_gluon", "rand"] = "none"
    rand_ops: int = 2  # rand: operations an image (arXiv 1909.13719)
    rand_magnitude: int = 9  # rand: of torchvision's 0 to 30, which are not timm's 0 to 10
    erase: float = 0.0  # probability that a box becomes the mean colour (arXiv 1708.04896)
    balance: float = 0.0  # 1: every class equally often; 0.5: by the square root of its size; 0: as the data is
    repeats: int = 1  # of each image in its step, each augmented anew; an epoch keeps its length (arXiv 1901.09335)
    reduced_decode: bool = True  # decode large JPEGs no finer than the training crop needs
    workers: int | None = None  # loading processes; none: one a spare core

    def __post_init__(self) -> None:
        if not 0 < self.val_share < 1:
            raise ResnestError(f"data.val_share={self.val_share} must lie between 0 and 1")
        if not 0 < self.min_area <= 1:
            raise ResnestError(f"data.min_area={self.min_area} must lie in (0, 1]")
        for name in ("size", "start_size", "eval_size"):
            value = getattr(self, name)
            if value is not None and value < 8:
                raise ResnestError(f"data.{name}={value} must be 8 pixels or more")
            if value is not None and value > LARGEST:
                raise ResnestError(f"data.{name}={value} must be {LARGEST} pixels or fewer")
        if self.start_size is not None and self.start_size > self.size:
            raise ResnestError(
                f"data.start_size={self.start_size} with data.size={self.size}: crops grow to data.size. Set"
                f" data.start_size to {self.size} or less"
            )
        for name in ("repeats", "rand_ops"):
            if getattr(self, name) < 1:
                raise ResnestError(f"data.{name}={getattr(self, name)} must be 1 or more")
        if not 0 <= self.rand_magnitude <= 30:
            raise ResnestError(f"data.rand_magnitude={self.rand_magnitude} must lie in 0 to 30")
        for name in ("erase", "balance", "shift", "jitter"):
            if not 0 <= getattr(self, name) <= 1:
                raise ResnestError(f"data.{name}={getattr(self, name)} must lie in [0, 1]")
        if not self.lighting >= 0:
            raise ResnestError(f"data.lighting={self.lighting} must be 0 (off) or more")
        if not min(self.std) > 0:
            raise ResnestError(
                f"data.std={list(self.std)} must be more than 0 in each channel: pixels are divided by it"
            )
        if self.workers is not None and self.workers < 0:
            raise ResnestError(f"data.workers={self.workers} must be 0 (no loading processes) or more, or null")
        if self.eval_crop is not None and not 0 < self.eval_crop <= 1:
            raise ResnestError(f"data.eval_crop={self.eval_crop} must lie in (0, 1]")

    def size_at(self, epoch: int, epochs: int) -> int:
        """Crop size of an epoch: linear from `start_size` to `size`, rounded to 16 pixels."""
        if self.start_size is None or epochs < 2:
            return self.size
        grown = self.start_size + (self.size - self.start_size) * epoch / (epochs - 1)
        return self.size if epoch == epochs - 1 else max(16, round(grown / 16) * 16)

    @property
    def preprocess(self) -> Preprocess:
        """The preprocessing in evaluation for weights trained with these settings."""
        return Preprocess(
            size=self.eval_size or self.size,
            crop=self.eval_crop,
            interpolation=self.eval_interpolation or self.interpolation,
            mean=self.mean,
            std=self.std,
        )
