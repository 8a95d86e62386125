"""Panoptic FPN: detector and semantic branch on one pyramid (Kirillov et al., arXiv 1901.02446, section 3).

    net = build_panoptic(spec, DetectorSpec(masks=True), PanopticSpec(), num_classes=133, things=80)
    net.eval()(images)                                 # PanopticOutput: objects, and logits of every pixel
    net.train()(images, sizes, targets)                # losses by name

`panoptic.merge` merges both to segments that do not overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.detection.card import DetectorSpec
from resnest.detection.detector import DetectionOutput, full_sizes
from resnest.detection.rcnn import RCNN
from resnest.detection.rpn import Target
from resnest.errors import ResnestError
from resnest.network.deform import stage_convs
from resnest.network.pyramid import STRIDES, ConvNorm
from resnest.network.resnest import Backbone
from resnest.panoptic.card import PanopticSpec
from resnest.segmentation.card import IGNORED
from resnest.spec import HeadNorm, Spec

# --- The semantic branch of Panoptic FPN (Kirillov et al., arXiv 1901.02446, section 3.1, figure 3) ---

LEVELS = 4  # P2 to P5: P6 is for the proposals of large objects alone


class SemanticBranch(nn.Module):
    """Each level is upsampled to P2 in steps of 3x3 convolution and doubling; their sum is classified.

    Shapes: [(N, in_chans, H/4, W/4), ..., (N, in_chans, H/32, W/32)] -> (N, num_outputs, H, W).
    """

    def __init__(self, in_chans: int, channels: int, num_outputs: int, norm: HeadNorm) -> None:
        super().__init__()
        steps = [max(1, level) for level in range(LEVELS)]  # P2 has its size, and one convolution all the same
        self.scale = nn.ModuleList(
            nn.ModuleList(ConvNorm(channels if step else in_chans, channels, 3, norm) for step in range(count))
            for count in steps
        )
        self.logits = nn.Conv2d(channels, num_outputs, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # detectron2's
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """(N, num_outputs, H, W) from the first levels; further ones are unused."""
        p2, p3, p4, p5 = (self._scale(index, levels[index]) for index in range(LEVELS))
        logits: Tensor = self.logits(p2 + p3 + p4 + p5)
        return _enlarge(logits, STRIDES[0])

    def _scale(self, index: int, level: Tensor) -> Tensor:
        convs = self.scale[index]
        assert isinstance(convs, nn.ModuleList)
        for conv in convs:
            level = F.relu(conv(level))
            level = _enlarge(level, 2) if index else level
        return level

    @staticmethod
    def loss(logits: Tensor, targets: Sequence[Target]) -> Tensor:
        """Cross-entropy, mean over the pixels that are not ignored; 0 if there is none. Padding is ignored."""
        truth = logits.new_full((logits.shape[0], *logits.shape[2:]), IGNORED, dtype=torch.int64)
        for canvas, target in zip(truth, targets, strict=True):
            assert target.semantic is not None
            height, width = target.size
            canvas[:height, :width] = target.semantic
        total = F.cross_entropy(logits.float(), truth, ignore_index=IGNORED, reduction="sum")
        return total / (truth != IGNORED).sum().clamp(min=1)


def _enlarge(maps: Tensor, factor: int) -> Tensor:
    return F.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)


class PanopticOutput(NamedTuple):
    """Outputs for N images."""

    objects: DetectionOutput
    semantic: Tensor  # (N, 1 + S, H, W) logits in pixels of the input: any thing, then S kinds of stuff


class PanopticFPN(RCNN):
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
    ) -> PanopticOutput | dict[str, Tensor]:
        """Detections and semantic logits, or in training the losses; targets as a detector's, with a `semantic` map."""
        levels = self.features(images)
        logits: Tensor = self.semantic(levels)
        if targets is None:
            return PanopticOutput(self.detect(levels, images, sizes), logits)
        sizes = full_sizes(images) if sizes is None else sizes
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
    in_chans: int = 3,
    zero_gamma: bool = True,
) -> PanopticFPN:
    """A panoptic network with random weights. Raises ResnestError as `PanopticFPN` does."""
    convs = stage_convs(detector.deform, detector.deform_groups)
    backbone = Backbone(spec, in_chans=in_chans, zero_gamma=zero_gamma, convs=convs)
    return PanopticFPN(backbone, detector, panoptic, num_classes, things)
