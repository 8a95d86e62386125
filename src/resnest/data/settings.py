"""Settings of data: format, crop, augmentation. Part of every recipe; needs no torch.

DataSettings(size=128, start_size=64, min_area=0.35)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from resnest.data.grouping import check_group
from resnest.data.splitting import Holdout, parse_fold
from resnest.errors import Range, ResnestError, check_ranges
from resnest.runtime.bands import Bands
from resnest.runtime.decode import Exif
from resnest.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD, LARGEST, Interpolation, Preprocess
from resnest.spec import Count, NotNegative, Positive, ProperShare, Share, SomeShare, Whole

MOST_CHANNELS = 1024
Side = Annotated[int, Range(8, LARGEST, hint=" pixels")]
PerChannel = Annotated[float, Range(0, ends="(]", hint=" in each channel: pixels are divided by it")]


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Settings of reading, cropping and augmenting images."""

    format: str = "auto"  # one of data.formats.FORMATS, such as folder, coco, voc or masks; auto looks
    # which way up pictures with an EXIF orientation were annotated; auto: as the size tells, else upright as tools show
    exif: Exif = "auto"
    val_share: ProperShare = 0.2  # share of each class held out where the data has no validation split
    # what is held out together: a column of a CSV list, folder:N above a picture, or a regular expression on its name
    group: str | None = None
    fold: str | None = None  # "0/5": hold out the first of five folds in place of a share
    exclude: str | None = None  # a list of pictures to leave out (data/exclusion.py), a .csv or a .txt
    size: Side = 224  # training crop, pixels
    start_size: Side | None = None  # crop of the first epoch; grows evenly to `size` (progressive resizing)
    eval_size: Side | None = None  # evaluation crop, pixels; none: `size`
    eval_crop: SomeShare | None = None  # share of the short side; none: eval_size / (eval_size + 32), as published
    interpolation: Interpolation = "bilinear"
    eval_interpolation: Interpolation | None = None  # none: `interpolation`
    in_chans: Annotated[int, Range(1, MOST_CHANNELS)] = 3  # channels that pictures are read with
    value_range: Positive | None = None  # the value that is 1.0 before mean and std; none: by each file's data type
    # of channels in 0..1; []: of the training pictures, as when training starts with other channels than three
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[PerChannel, ...] = IMAGENET_STD
    min_area: SomeShare = 0.08  # smallest area fraction of the random crop; 1: full image, no crop
    # what is drawn evenly: the crop's area, or its height as EfficientNet does
    crop: Literal["area", "height"] = "area"
    flip: bool = True  # mirror left and right; wrong for digits and text
    shift: Share = 0.0  # random shift, share of the side
    jitter: Share = 0.0  # brightness, contrast and saturation, each by up to this share
    lighting: NotNegative = 0.0  # PCA colour noise, standard deviation (AlexNet, section 4.1)
    # TrivialAugment (arXiv 2103.10158), AutoAugment (1805.09501), the same as the published weights had it, RandAugment
    augment: Literal["none", "trivial", "auto", "auto_gluon", "rand"] = "none"
    rand_ops: Count = 2  # rand: operations an image (arXiv 1909.13719)
    rand_magnitude: Annotated[int, Range(0, 30)] = 9  # rand: of torchvision's 0 to 30, which are not timm's 0 to 10
    erase: Share = 0.0  # probability that a box becomes the mean colour (arXiv 1708.04896)
    balance: Share = 0.0  # 1: every class equally often; 0.5: by the square root of its size; 0: as the data is
    # images with a class that fewer than this share of them show come more often (repeat-factor sampling; LVIS: 0.001)
    repeat_threshold: Share = 0.0
    repeats: Count = 1  # of each image in its step, each augmented anew; an epoch keeps its length (arXiv 1901.09335)
    reduced_decode: bool = True  # decode large JPEGs no finer than the training crop needs
    workers: Whole | None = None  # loading processes; 0: none; null: one a spare core

    def __post_init__(self) -> None:
        check_ranges(self, "data.")
        if self.group is not None:
            check_group(self.group)
        if self.fold is not None:
            parse_fold(self.fold)
        self._settle_normalisation()
        if self.balance and self.repeat_threshold:
            raise ResnestError(
                f"data.balance={self.balance} with data.repeat_threshold={self.repeat_threshold}: both draw rare"
                " classes more often. Set one of them to 0"
            )
        if self.start_size is not None and self.start_size > self.size:
            raise ResnestError(
                f"data.start_size={self.start_size} with data.size={self.size}: crops grow to data.size. Set"
                f" data.start_size to {self.size} or less"
            )

    def _settle_normalisation(self) -> None:
        """Mean and std, one a channel each; () and () are computed. Raises ResnestError for any other number."""
        if self.in_chans != 3:  # ImageNet's are of red, green and blue
            for name, usual in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
                if tuple(getattr(self, name)) == usual:
                    object.__setattr__(self, name, ())
        for name in ("mean", "std"):
            values = tuple(getattr(self, name))
            object.__setattr__(self, name, values)
            if values and len(values) != self.in_chans:
                raise ResnestError(
                    f"data.{name}={list(values)} with data.in_chans={self.in_chans}: give a number a channel, or [] for"
                    " those of the training pictures"
                )
        if bool(self.mean) != bool(self.std):
            given, other = ("mean", "std") if self.mean else ("std", "mean")
            raise ResnestError(f"data.{given} is given and data.{other} is not: give both, or [] for both")

    @property
    def normalisation(self) -> dict[str, Any]:
        """These fields of the preprocessing in evaluation."""
        return {"mean": self.mean, "std": self.std, "value_range": self.value_range}

    @property
    def bands(self) -> Bands:
        """How pictures are read."""
        return Bands(self.in_chans, self.value_range)

    def size_at(self, epoch: int, epochs: int) -> int:
        """Crop size of an epoch: linear from `start_size` to `size`, rounded to 16 pixels."""
        if self.start_size is None or epochs < 2:
            return self.size
        grown = self.start_size + (self.size - self.start_size) * epoch / (epochs - 1)
        return self.size if epoch == epochs - 1 else max(16, round(grown / 16) * 16)

    def holdout(self, seed: int) -> Holdout:
        """What is held out of data without a validation part."""
        return Holdout(self.val_share, seed, self.group, self.fold)

    @property
    def preprocess(self) -> Preprocess:
        """The preprocessing in evaluation for weights trained with these settings."""
        return Preprocess(
            size=self.eval_size or self.size,
            crop=self.eval_crop,
            interpolation=self.eval_interpolation or self.interpolation,
            **self.normalisation,
        )
