"""The card of a detector.

card = DetectionCard(..., detector=DetectorSpec(masks=True), category_ids=(1, 2), preprocess=DetectionPreprocess())
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from resnest.detection.preprocess import DetectionPreprocess
from resnest.detection.result import Classes
from resnest.detection.spec import DetectorSpec
from resnest.runtime.card import AnnotatedCard, parse_sides


@dataclass(frozen=True, kw_only=True)
class DetectionCard(AnnotatedCard):
    """The card of a detector, with masks or without."""

    task = "detection"
    hub_metric = ("box_ap", "mAP")
    figure_titles: ClassVar = {
        "box_ap": "box AP",
        "box_ap50": "box AP50",
        "mask_ap": "mask AP",
        "mask_ap50": "mask AP50",
    }
    usage = (".shown().counts()", "--draw drawn")

    preprocess: DetectionPreprocess
    detector: DetectorSpec  # the heads on the network

    @classmethod
    def preprocess_type(cls) -> type[DetectionPreprocess]:
        return DetectionPreprocess

    @property
    def classes(self) -> Any:
        """Names, ids and colours of the classes."""
        return Classes(self.class_names, self.category_ids)

    @property
    def pipeline_tag(self) -> str:  # type: ignore[override]
        return "image-segmentation" if self.detector.masks else "object-detection"

    def describe_network(self, paper: str) -> str:
        return f"{self.detector.title} on a {paper} (`{self.architecture}`)"

    def describe_purpose(self) -> str:
        count, what = len(self.class_names), "boxes and masks" if self.detector.masks else "boxes"
        kinds = f"objects of {count} classes" if count > 1 else "one class of objects"
        return f"finds {kinds}, with {what}"

    def describe_input(self) -> str:
        scaled = self.preprocess
        return (
            f"RGB; the short side is resized to {scaled.short} pixels, unless the long one would pass {scaled.long};"
            f" mean {scaled.mean}, standard deviation {scaled.std}."
        )

    def own_keys(self) -> dict[str, Any]:
        return {"detector": dataclasses.asdict(self.detector), **super().own_keys()}

    @classmethod
    def parse_own(cls, ours: Mapping[str, Any]) -> dict[str, Any]:
        return {"detector": DetectorSpec(**ours["detector"]), **super().parse_own(ours)}

    @classmethod
    def parse_preprocess(cls, content: dict[str, Any]) -> DetectionPreprocess:
        content["canvas"] = parse_sides(content["canvas"], "canvas") if content["canvas"] else None
        parse_sides([content["short"], content["long"]], "short and long")
        return DetectionPreprocess(**content)
