"""The recipe of a detector: the common sections, and `detector` and `detection`, which is about images.

DetectionRecipe(name="cells", detector=DetectorSpec(masks=True), detection=DetectionSettings(flip_vertical=True))
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from resnest.data.settings import DataSettings
from resnest.detection.preprocess import DIVISOR, DetectionPreprocess
from resnest.detection.spec import DetectorSpec
from resnest.errors import Range, ResnestError, check_ranges
from resnest.recipes.schema import Expect, Recipe
from resnest.runtime.preprocess import LARGEST

Side = Annotated[int, Range(DIVISOR, LARGEST, hint=" pixels")]


@dataclass(frozen=True, kw_only=True)
class DetectionSettings:
    """Settings of a detector's images, in addition to `data`, whose size, crop and augment are unused."""

    short: tuple[Side, ...] = (640, 800)  # pixels of the short side in training (detectron2's INPUT.MIN_SIZE_TRAIN)
    pick: Literal["range", "choice"] = "range"  # any between two of them, or one of those named
    long: Side = 1333  # the long side is not longer, in training
    eval_short: Side = 800
    eval_long: Side = 1333
    # smallest share of both sides that a random crop keeps (relative_range); none: no crop
    crop: Annotated[float | None, Range(0, 1.0, "(]", ", or be null for no crop")] = None
    flip_vertical: bool = False  # for pictures without an up and a down: microscopes, satellites
    rotate: bool = False  # by quarter turns; the same
    keep_empty: bool = False  # train on images without objects too; detectron2 leaves them out
    backbone_norm: Literal["batch", "frozen"] = "batch"  # frozen: statistics stay as loaded, for few images a step

    def __post_init__(self) -> None:
        object.__setattr__(self, "short", tuple(self.short))
        check_ranges(self, "detection.")
        if not self.short:
            raise ResnestError("detection.short=[] must have a value")
        if self.pick == "range" and (len(self.short) > 2 or list(self.short) != sorted(self.short)):
            raise ResnestError(
                f"detection.short={list(self.short)} with detection.pick=range: give the smallest and the largest. For"
                " one of several, set detection.pick=choice"
            )

    def preprocess(self, data: DataSettings) -> DetectionPreprocess:
        """The preprocessing in evaluation for weights trained with these settings."""
        return DetectionPreprocess(short=self.eval_short, long=self.eval_long, mean=data.mean, std=data.std)


@dataclass(frozen=True, kw_only=True)
class DetectionExpect(Expect):
    """Expected accuracy of the recipe, fractions."""

    box_ap: float | None = None
    mask_ap: float | None = None


@dataclass(frozen=True, kw_only=True)
class DetectionRecipe(Recipe):
    """The recipe of a detector, with masks or without."""

    own_sections: ClassVar[tuple[str, ...]] = ("detector", "detection")
    image_section: ClassVar[str] = "detection"

    task: str = "detection"
    detector: DetectorSpec = field(default_factory=DetectorSpec)
    detection: DetectionSettings = field(default_factory=DetectionSettings)
    expect: DetectionExpect | None = None

    @property
    def frozen_backbone_norm(self) -> bool:
        return self.detection.backbone_norm == "frozen"

    def heads(self) -> dict[str, str]:
        return {"Detector": self.detector.title}

    def listing(self) -> tuple[str, dict[str, str]]:
        if self.detector.masks:
            return "Instance segmentation", {"box AP": "box_ap", "mask AP": "mask_ap"}
        return "Object detection", {"box AP": "box_ap"}

    def contradictions(self) -> Iterator[str]:
        settings = self.detection
        for prefix, short in (("", max(settings.short)), ("eval_", settings.eval_short)):
            if short > (long := getattr(settings, f"{prefix}long")):
                shown = list(settings.short) if not prefix else short
                yield (
                    f"detection.{prefix}short={shown} with detection.{prefix}long={long}: the long side would be"
                    f" shorter than the short one. Set detection.{prefix}long to {short} or more"
                )
