"""A segmenter: a backbone with dilated last stages, a head, and in training an auxiliary head on stage 3.

    net = build_segmenter(find_spec("resnest50")[0], SegmenterSpec(), num_classes=150)
    net.eval()(images)                                 # logits (N, 150, H, W)
    net.train()(images, targets)                       # losses by name

Settings and their sources: `resnest.segmentation.spec`. Inputs are normalised, of any height and width.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.checkpoints.loading import find_pretrained, find_structure
from resnest.errors import ResnestError
from resnest.inference.prepare import prepared_whole
from resnest.network.resnest import Backbone
from resnest.segmentation.heads import HEADS, FCNHead, resize
from resnest.segmentation.spec import IGNORED, SegmenterSpec
from resnest.segmentation.weights import WEIGHTS
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
        self.wrong = CrossEntropy()

    def forward(self, images: Tensor, targets: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """Logits, or in training the losses.

        Args:
            images: (N, 3, H, W).
            targets: (N, H, W) uint8, 255 where a pixel does not count; gives losses, weighted, in place of logits.
        """
        maps = self.backbone(images)  # C2 to C5
        logits = self.head(maps)  # (N, K, h, w)
        if targets is None:
            return resize(logits, images.shape[2:])
        losses = {"pixels": self.loss(logits, targets)}
        if self.auxiliary is not None:
            losses["auxiliary"] = self.spec.aux * self.loss(self.auxiliary(maps[:-1]), targets)
        return losses

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy, mean over the pixels that are not ignored; zero, with zero gradient, if there is none.

        Shapes: (N, K, h, w), which is enlarged to the size of the targets, (N, H, W) uint8 -> scalar.
        """
        sums = [self.wrong(one[None], target[None]) for one, target in zip(logits, targets, strict=True)]
        return torch.stack(sums).sum() / (targets != IGNORED).sum().clamp(min=1)


def prepared_segmenter(
    net: Segmenter, *, memory_format: torch.memory_format = torch.channels_last, kernels: bool = False
) -> Segmenter:
    """A copy for inference only, without the auxiliary head; arguments as for `prepared`."""
    fast = prepared_whole(net, memory_format=memory_format, kernels=kernels)
    fast.auxiliary = None
    return fast


class CrossEntropy(nn.Module):
    """Cross-entropy of an image's upsampled logits, summed: (1, K, h, w), (1, H, W) -> scalar.

    One image at a time, since logits of full size are the largest maps of a training step: to compute them again
    (network/tools.py) takes the room of one image's.
    """

    checkpointable = True

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        large = resize(logits, target.shape[1:]).float()
        return F.cross_entropy(large, target.long(), ignore_index=IGNORED, reduction="sum")


def build_segmenter(spec: Spec, segmenter: SegmenterSpec, num_classes: int, *, zero_gamma: bool = True) -> Segmenter:
    """A segmenter with random weights."""
    backbone = Backbone(spec, output_stride=segmenter.output_stride, dilation=segmenter.dilation, zero_gamma=zero_gamma)
    return Segmenter(backbone, segmenter, num_classes)


def create_segmenter(
    backbone: Spec | str = "resnest50",
    segmenter: SegmenterSpec | None = None,
    *,
    num_classes: int = 150,
    pretrained: bool | str | Path = False,
    **spec: Any,
) -> Segmenter:
    """A segmenter on any network.

    Args:
        backbone: a name of `list_models()`, one of timm's names, or a `Spec`.
        segmenter: DeepLabV3 at output stride 8 as in the paper, if not given.
        pretrained: True for the published classifier's weights in the backbone; or whatever `create_model` takes, a
            complete segmenter too; if its classes differ from `num_classes`, the class predictors start untrained.
        spec: fields of `Spec` to change.

    Raises:
        ResnestError: an unknown name or field, a combination that cannot be built, weights that cannot be had or do
            not fit.
    """
    if not 1 <= num_classes <= IGNORED:
        raise ResnestError(f"num_classes={num_classes} must lie in 1 to {IGNORED}: the label 255 does not count")
    net = build_segmenter(find_structure(backbone, spec), segmenter or SegmenterSpec(), num_classes)
    if pretrained is not False:
        WEIGHTS.load(net, find_pretrained(pretrained, backbone))
    return net
