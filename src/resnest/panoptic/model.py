"""Panoptic FPN: detector and semantic branch on one pyramid (Kirillov et al., arXiv 1901.02446, section 3).

    net = build_panoptic(spec, DetectorSpec(masks=True), PanopticSpec(), num_classes=133, things=80)
    net.eval()(images)                                 # DetectedPanoptic: objects, and logits of every pixel
    net.train()(images, sizes, targets)                # losses by name

`panoptic.merge` merges both to segments that do not overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from resnest.detection.boxes import Target
from resnest.detection.detector import Detected, Detector
from resnest.detection.spec import DetectorSpec
from resnest.errors import ResnestError
from resnest.network.deform import stage_convs
from resnest.network.resnest import Backbone
from resnest.panoptic.semantic import SemanticBranch
from resnest.panoptic.spec import PanopticSpec
from resnest.spec import Spec


class DetectedPanoptic(NamedTuple):
    """Outputs for N images."""

    objects: Detected
    semantic: Tensor  # (N, 1 + S, H, W) logits in pixels of the input: any thing, then S kinds of stuff


class PanopticFPN(Detector):
    """A detector of things with a semantic branch for the stuff classes, and for all things as one.

    Args:
        num_classes: of all classes; the first `things` of them are things.

    Raises:
        ResnestError: no thing or no stuff, or a detector without masks.
    """

    def __init__(
        self, backbone: nn.Module, detector: DetectorSpec, panoptic: PanopticSpec, num_classes: int, things: int
    ) -> None:
        _check(detector, num_classes, things)
        super().__init__(backbone, detector, things)
        self.panoptic = panoptic
        outputs = 1 + num_classes - things
        self.semantic = SemanticBranch(detector.fpn_channels, panoptic.channels, outputs, detector.norm)

    def forward(  # type: ignore[override]
        self, images: Tensor, sizes: Tensor | None = None, targets: Sequence[Target] | None = None
    ) -> DetectedPanoptic | dict[str, Tensor]:
        """Detections and semantic logits, or in training the losses; targets as a detector's, with a `semantic` map."""
        levels = self.features(images)
        logits: Tensor = self.semantic(levels)
        if targets is None:
            return DetectedPanoptic(self.detect(levels, images, sizes), logits)
        objects, panoptic = self.losses(levels, images, sizes, targets), self.panoptic
        weighted = {name: panoptic.instance_weight * loss for name, loss in objects.items()}
        return {**weighted, "semantic": panoptic.semantic_weight * self.semantic.loss(logits, targets)}


def _check(detector: DetectorSpec, num_classes: int, things: int) -> None:
    if not 1 <= things < num_classes:
        raise ResnestError(
            f"{things} of {num_classes} classes are things: a panoptic detector needs both things and stuff"
        )
    if not detector.masks:
        raise ResnestError("this panoptic detector cannot be built: things need masks, set detector.masks=true")


def build_panoptic(
    spec: Spec,
    detector: DetectorSpec,
    panoptic: PanopticSpec,
    num_classes: int,
    things: int,
    *,
    zero_gamma: bool = True,
) -> PanopticFPN:
    """A panoptic network with random weights. Raises ResnestError as `PanopticFPN` does."""
    backbone = Backbone(spec, zero_gamma=zero_gamma, convs=stage_convs(detector.deform, detector.deform_groups))
    return PanopticFPN(backbone, detector, panoptic, num_classes, things)
