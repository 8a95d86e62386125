"""The recipe of a detector: the common sections, and `detector` and `detection`.

DetectionRecipe(name="cells", detector=DetectorSpec(masks=True), detection=DetectionSettings(flip_vertical=True))
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from resnest.detection.settings import DetectionSettings
from resnest.detection.spec import DetectorSpec
from resnest.recipes.schema import Expect, Recipe


@dataclass(frozen=True, kw_only=True)
class DetectionExpect(Expect):
    """What the recipe reaches, fractions."""

    box_ap: float | None = None
    mask_ap: float | None = None


@dataclass(frozen=True, kw_only=True)
class DetectionRecipe(Recipe):
    """Of a detector, with masks or without."""

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
