"""A segmenter: a backbone, a head, and in training, if the structure says so, an auxiliary head on stage 3.

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
from resnest.inference.prepare import prepared_full_model
from resnest.network.resnest import Backbone
from resnest.segmentation.card import IGNORED
from resnest.segmentation.heads import HEADS
from resnest.segmentation.heads.common import resize
from resnest.segmentation.heads.fcn import FCNHead
from resnest.segmentation.spec import SegmenterSpec
from resnest.segmentation.weights import WEIGHTS
from resnest.spec import Spec


class Segmenter(nn.Module):
    """DeepLabV3, or by `spec` another of `HEADS`.

    Args:
        backbone: has `channels`, and gives the maps that the head takes as a list.

    Raises:
        ResnestError: it gives another number of maps.
    """

    def __init__(self, backbone: nn.Module, spec: SegmenterSpec, num_classes: int) -> None:
        super().__init__()
        self.spec, self.num_classes = spec, num_classes
        self.backbone = backbone
        channels: list[int] = backbone.channels  # type: ignore[assignment]
        kind = HEADS[spec.head]
        if len(channels) != len(kind.takes):
            raise ResnestError(
                f"a {spec.title} takes {len(kind.takes)} maps of a backbone, and this one gives {len(channels)}:"
                f" build it with out_indices={kind.takes}"
            )
        self.head = kind(channels, spec, num_classes)
        self.auxiliary: nn.Module | None = None
        if spec.aux_weight:
            self.auxiliary = FCNHead(channels[:-1], dataclasses.replace(spec, channels=None), num_classes)
        self.wrong = CrossEntropy()

    def forward(self, images: Tensor, targets: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """Logits, or in training the losses.

        Args:
            images: (N, 3, H, W).
            targets: (N, H, W) uint8, 255 where a pixel does not count; gives losses, weighted, in place of logits.
        """
        size = images.shape[2:]
        maps = self.backbone(images)  # those that the head takes, the last is C5
        logits: Tensor = self.head(maps, size)  # (N, K, h, w)
        if targets is None:
            return logits if self.head.full_size else resize(logits, size)
        losses = {"pixels": self.loss(logits, targets)}
        if self.auxiliary is not None:
            losses["auxiliary"] = self.spec.aux_weight * self.loss(self.auxiliary(maps[:-1], size), targets)
        return losses

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy, mean over the pixels that are not ignored; zero, with zero gradient, if there is none.

        Shapes: (N, K, h, w), which is enlarged to the size of the targets, (N, H, W) uint8 -> scalar.
        """
        sums = [self.wrong(scores[None], target[None]) for scores, target in zip(logits, targets, strict=True)]
        return torch.stack(sums).sum() / (targets != IGNORED).sum().clamp(min=1)


def prepared_segmenter(
    net: Segmenter, *, memory_format: torch.memory_format = torch.channels_last, kernels: bool = False
) -> Segmenter:
    """A copy for inference only, without the auxiliary head; arguments as for `prepared`."""
    fast = prepared_full_model(net, memory_format=memory_format, kernels=kernels)
    fast.auxiliary = None
    return fast


class CrossEntropy(nn.Module):
    """Cross-entropy of an image's upsampled logits, summed: (1, K, h, w), (1, H, W) -> scalar.

    One image at a time, since logits of full size are the largest maps of a training step: to compute them again
    (network/tools.py) takes the room of one image's.
    """

    checkpointable = True

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        size = target.shape[1:]
        large = (logits if logits.shape[2:] == size else resize(logits, size)).float()
        return F.cross_entropy(large, target.long(), ignore_index=IGNORED, reduction="sum")


def build_segmenter(
    spec: Spec, segmenter: SegmenterSpec, num_classes: int, *, in_chans: int = 3, zero_gamma: bool = True
) -> Segmenter:
    """A segmenter with random weights."""
    backbone = Backbone(
        spec,
        in_chans=in_chans,
        output_stride=segmenter.stride,
        dilation=segmenter.dilation,
        out_indices=HEADS[segmenter.head].takes,
        zero_gamma=zero_gamma,
    )
    return Segmenter(backbone, segmenter, num_classes)


def create_segmenter(
    backbone: Spec | str = "resnest50",
    segmenter: SegmenterSpec | None = None,
    *,
    num_classes: int = 150,
    in_chans: int = 3,
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
    net = build_segmenter(find_structure(backbone, spec), segmenter or SegmenterSpec(), num_classes, in_chans=in_chans)
    if pretrained is not False:
        WEIGHTS.load(net, find_pretrained(pretrained, backbone))
    return net
