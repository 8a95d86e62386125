"""The recipe of a panoptic detector: a detector's, and `panoptic`.

PanopticRecipe(name="scenes", panoptic=PanopticSpec(channels=64))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from resnest.detection.recipe import DetectionExpect, DetectionRecipe, DetectionSettings
from resnest.detection.spec import DetectorSpec
from resnest.panoptic.spec import PanopticSpec


@dataclass(frozen=True, kw_only=True)
class PanopticExpect(DetectionExpect):
    """Expected accuracy of the recipe, fractions."""

    pq: float | None = None


@dataclass(frozen=True, kw_only=True)
class PanopticRecipe(DetectionRecipe):
    """The recipe of a panoptic network: things need masks, and images without things are used for stuff."""

    own_sections: ClassVar[tuple[str, ...]] = ("detector", "detection", "panoptic")

    task: str = "panoptic"
    detector: DetectorSpec = field(default_factory=lambda: DetectorSpec(masks=True))
    detection: DetectionSettings = field(default_factory=lambda: DetectionSettings(keep_empty=True))
    panoptic: PanopticSpec = field(default_factory=PanopticSpec)
    expect: PanopticExpect | None = None

    def heads(self) -> dict[str, str]:
        return {**super().heads(), "Stuff": "semantic branch of Panoptic FPN"}

    def listing(self) -> tuple[str, dict[str, str]]:
        return "Panoptic segmentation", {"PQ": "pq", "box AP": "box_ap", "mask AP": "mask_ap"}

    def contradictions(self) -> Iterator[str]:
        if not self.detector.masks:
            yield "detector.masks=false with task=panoptic: things need masks. Set detector.masks=true"
        yield from super().contradictions()


def as_panoptic(recipe: DetectionRecipe, **changes: Any) -> PanopticRecipe:
    """A detector's recipe with a semantic branch, and with changed settings."""
    common = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(recipe)}
    return PanopticRecipe(**{**common, "task": "panoptic", "expect": None, **changes})
