"""Settings of a detector's training images: the section `detection` of a recipe. No torch.

DetectionSettings(short=(640, 800), flip_vertical=True)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from resnest.data.settings import LARGEST, DataSettings
from resnest.detection.preprocess import DIVISOR, DetectionPreprocess
from resnest.errors import ResnestError


@dataclass(frozen=True, kw_only=True)
class DetectionSettings:
    """What happens to the images of a detector; beside `data`, of which size, crop and augment play no role then."""

    short: tuple[int, ...] = (640, 800)  # pixels of the short side in training (detectron2's INPUT.MIN_SIZE_TRAIN)
    pick: Literal["range", "choice"] = "range"  # any between two of them, or one of those named
    long: int = 1333  # the long side is not longer, in training
    eval_short: int = 800
    eval_long: int = 1333
    crop: float | None = None  # smallest share of both sides that a random crop keeps (relative_range); none: no crop
    flip_vertical: bool = False  # for pictures without an up and a down: microscopes, satellites
    rotate: bool = False  # by quarter turns; the same
    keep_empty: bool = False  # train on images without objects too; detectron2 leaves them out
    backbone_norm: Literal["batch", "frozen"] = "batch"  # frozen: statistics stay as loaded, for few images a step

    def __post_init__(self) -> None:
        object.__setattr__(self, "short", tuple(self.short))
        if not self.short or min(self.short) < DIVISOR or max(self.short) > LARGEST:
            raise ResnestError(f"detection.short={list(self.short)} must be {DIVISOR} to {LARGEST} pixels each")
        if self.pick == "range" and (len(self.short) > 2 or list(self.short) != sorted(self.short)):
            raise ResnestError(
                f"detection.short={list(self.short)} with detection.pick=range: give the smallest and the largest. For"
                " one of several, set detection.pick=choice"
            )
        for name in ("long", "eval_short", "eval_long"):
            if not DIVISOR <= getattr(self, name) <= LARGEST:
                raise ResnestError(f"detection.{name}={getattr(self, name)} must be {DIVISOR} to {LARGEST} pixels")
        if self.crop is not None and not 0 < self.crop <= 1:
            raise ResnestError(f"detection.crop={self.crop} must lie in (0, 1], or be null for no crop")

    def preprocess(self, data: DataSettings) -> DetectionPreprocess:
        """The evaluation transform that goes with weights trained so."""
        return DetectionPreprocess(short=self.eval_short, long=self.eval_long, mean=data.mean, std=data.std)
