"""The recipe of a segmenter: the common sections, and `segmenter` and `segmentation`.

SegmentationRecipe(name="streets", segmenter=SegmenterSpec(), segmentation=SegmentationSettings(crop=512))
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from resnest.recipes.schema import Expect, Recipe
from resnest.segmentation.settings import SegmentationSettings
from resnest.segmentation.spec import SegmenterSpec


@dataclass(frozen=True, kw_only=True)
class SegmentationExpect(Expect):
    """What the recipe reaches, fractions."""

    miou: float | None = None
    pixel_accuracy: float | None = None


@dataclass(frozen=True, kw_only=True)
class SegmentationRecipe(Recipe):
    """Of a segmenter."""

    own_sections: ClassVar[tuple[str, ...]] = ("segmenter", "segmentation")
    image_section: ClassVar[str] = "segmentation"

    task: str = "segmentation"
    segmenter: SegmenterSpec = field(default_factory=SegmenterSpec)
    segmentation: SegmentationSettings = field(default_factory=SegmentationSettings)
    expect: SegmentationExpect | None = None

    @property
    def frozen_backbone_norm(self) -> bool:
        return self.segmentation.backbone_norm == "frozen"

    def heads(self) -> dict[str, str]:
        return {"Segmenter": self.segmenter.title}

    def listing(self) -> tuple[str, dict[str, str]]:
        return "Semantic segmentation", {"mIoU": "miou", "pixels": "pixel_accuracy"}
