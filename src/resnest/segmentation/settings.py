"""Settings of a segmenter's training images: the section `segmentation` of a recipe. No torch.

SegmentationSettings(base=520, crop=480, eval_window=512)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from resnest.data.settings import LARGEST, DataSettings
from resnest.errors import ResnestError
from resnest.segmentation.preprocess import LEAST, MOST_WINDOW, SegmentationPreprocess


@dataclass(frozen=True, kw_only=True)
class SegmentationSettings:
    """What happens to the images of a segmenter; beside `data`, of which size, crop and augment play no role then."""

    base: int = 520  # pixels of the long side, before `scale` (PyTorch-Encoding's base_size)
    scale: tuple[float, float] = (0.5, 2.0)  # the long side of a training image is drawn between these times `base`
    crop: int = 480  # pixels a side of what is cut out of it; what is missing is black and does not count
    flip_vertical: bool = False  # for pictures without an up and a down: microscopes, satellites
    eval_long: int | None = None  # pixels of the long side in evaluation; none: every picture in its own size
    eval_window: int | None = None  # side of the squares that a picture is looked at in; none: the whole at once
    backbone_norm: Literal["batch", "frozen"] = "batch"  # frozen: statistics stay as loaded, for few images a step

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", tuple(self.scale))
        for name in ("base", "crop", "eval_long", "eval_window"):
            value = getattr(self, name)
            if value is not None and not LEAST <= value <= LARGEST:
                raise ResnestError(f"segmentation.{name}={value} must be {LEAST} to {LARGEST} pixels")
        if self.eval_window is not None and self.eval_window > MOST_WINDOW:
            raise ResnestError(
                f"segmentation.eval_window={self.eval_window} must be {MOST_WINDOW} pixels or fewer: windows"
                " are there to spare memory, and null looks at the whole picture at once"
            )
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] <= 16:
            raise ResnestError(
                f"segmentation.scale={list(self.scale)} must be the smallest and the largest factor, such as [0.5, 2]"
            )

    def preprocess(self, data: DataSettings) -> SegmentationPreprocess:
        """The evaluation transform that goes with weights trained so."""
        return SegmentationPreprocess(long=self.eval_long, window=self.eval_window, mean=data.mean, std=data.std)
