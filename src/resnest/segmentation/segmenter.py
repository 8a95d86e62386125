"""A segmenter: a backbone whose last stages dilate, a head, and in training an auxiliary head on stage 3.

    net = build_segmenter(find_spec("resnest50")[0], SegmenterSpec(), num_classes=150)
    net.eval()(images)                                 # logits (N, 150, H, W)
    net.train()(images, targets)                       # losses by name

Settings and their sources: `resnest.segmenter_spec`. What goes in is normalised; any height and width will do.
"""

from __future__ import annotations

import dataclasses

from torch import Tensor, nn
from torch.nn import functional as F

from resnest.network.resnest import Backbone
from resnest.segmentation.heads import HEADS, FCNHead, resize
from resnest.segmenter_spec import IGNORED, SegmenterSpec
from resnest.spec import Spec


class Segmenter(nn.Module):
    """DeepLabV3, or by `spec` DeepLabV3+, FCN, PSPNet.

    Args:
        backbone: has `channels`, and gives C2 to C5 as a list.
    """

    def __init__(self, backbone: nn.Module, spec: SegmenterSpec, num_classes: int) -> None:
        super().__init__()
        self.spec, self.num_classes = spec, num_classes
        self.backbone = backbone
        channels: list[int] = backbone.channels  # type: ignore[assignment]
        self.head = HEADS[spec.head](channels, spec, num_classes)
        self.auxiliary: nn.Module | None = None
        if spec.aux:
            self.auxiliary = FCNHead(channels[:-1], dataclasses.replace(spec, channels=None), num_classes)

    def forward(self, images: Tensor, targets: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """What every pixel is, or how wrong that is.

        Args:
            images: (N, 3, H, W).
            targets: (N, H, W) uint8, 255 where a pixel does not count; gives losses, weighted, in place of logits.
        """
        maps = self.backbone(images)  # C2 to C5
        logits = resize(self.head(maps), images.shape[2:])  # (N, K, H, W)
        if targets is None:
            return logits
        losses = {"pixels": cross_entropy(logits, targets)}
        if self.auxiliary is not None:
            second = resize(self.auxiliary(maps[:-1]), images.shape[2:])
            losses["auxiliary"] = self.spec.aux * cross_entropy(second, targets)
        return losses


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the pixels that count; zero, with its gradient, where none does.

    Shapes: (N, K, H, W), (N, H, W) uint8 -> scalar.
    """
    total = F.cross_entropy(logits.float(), targets.long(), ignore_index=IGNORED, reduction="sum")
    return total / (targets != IGNORED).sum().clamp(min=1)


def build_segmenter(spec: Spec, segmenter: SegmenterSpec, num_classes: int, *, zero_gamma: bool = True) -> Segmenter:
    """A segmenter with random weights."""
    backbone = Backbone(spec, output_stride=segmenter.output_stride, dilation=segmenter.dilation, zero_gamma=zero_gamma)
    return Segmenter(backbone, segmenter, num_classes)
