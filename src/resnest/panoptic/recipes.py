"""Recipes of Panoptic FPN: the paper's row on COCO (arXiv 2004.08955, section 5), and recipes for your own pictures.

torchrun --nproc-per-node 8 -m resnest train panoptic_fpn_resnest200_tricks_3x --data coco --out runs/200
resnest train panoptic_small --data scenes --out runs/scenes --set model.pretrained=runs/a

The paper's row is the authors' detectron2 configuration (facts, sections 3.8 and 4.1): Cascade Mask R-CNN of the other
rows with four mask convolutions and a semantic branch, short sides of 400 to 1000 pixels. What differs from it, and the
small recipes, is as for detectors (detection/recipes.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from resnest.detection.card import DetectorSpec
from resnest.detection.recipes import (
    CASCADE_MASK,
    DetectionExpect,
    DetectionRecipe,
    DetectionSettings,
    finetune_instances,
    instances_small,
    paper,
)
from resnest.panoptic.card import PanopticSpec

# --- The recipe of a panoptic detector: a detector's, and `panoptic` ---


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


INSTANCES = "cascade_mask_rcnn_resnest200_tricks_3x"  # the row with the same network and schedule


def panoptic_fpn_resnest200_tricks_3x() -> PanopticRecipe:
    """270,000 steps of 16 images are 36.5 epochs of COCO's 118,287, here 37."""
    return as_panoptic(
        paper(INSTANCES),
        name="panoptic_fpn_resnest200_tricks_3x",
        summary="Panoptic FPN with Cascade Mask R-CNN on resnest200, COCO, 37 epochs, tricks",
        detector=CASCADE_MASK,
        detection=DetectionSettings(short=(400, 1000), long=1440, keep_empty=True),
        panoptic=PanopticSpec(),
        expect=PanopticExpect(
            pq=0.479,
            box_ap=0.51,
            mask_ap=0.4368,
            published=True,
            note="COCO val2017, published (detectron2, 8 GPUs); PQ of things 55.1, of stuff 37.0. Their configuration"
            " switches test-time augmentation on (short sides of 400 to 1200, mirrored); which of these figures have"
            " it is not known",
        ),
    )


def panoptic_small() -> PanopticRecipe:
    """Panoptic segmentation of a few hundred pictures on a CPU."""
    small = instances_small()
    return as_panoptic(
        small,
        name="panoptic_small",
        summary="things and stuff of a few hundred pictures, a small network, a CPU",
        detector=replace(small.detector, anchor_sizes=(16, 32, 64, 128, 256), post_nms=(400, 300), max_detections=100),
        detection=DetectionSettings(
            short=(224, 288), long=512, eval_short=256, eval_long=512, keep_empty=True, backbone_norm="frozen"
        ),
        panoptic=PanopticSpec(channels=64),
        expect=None,
    )


def finetune_panoptic() -> PanopticRecipe:
    """Panoptic FPN on the published ResNeSt-50; for a GPU."""
    instances = finetune_instances()
    return as_panoptic(
        instances,
        name="finetune_panoptic",
        summary="things and stuff of your own pictures, from published weights",
        detection=replace(instances.detection, keep_empty=True),
        panoptic=PanopticSpec(),
    )


RECIPES: dict[str, Callable[[], PanopticRecipe]] = {
    "panoptic_small": panoptic_small,
    "finetune_panoptic": finetune_panoptic,
    "panoptic_fpn_resnest200_tricks_3x": panoptic_fpn_resnest200_tricks_3x,
}
