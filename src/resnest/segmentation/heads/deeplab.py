"""DeepLabV3 (arXiv 1706.05587) and DeepLabV3+ (1802.02611)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.network.pyramid import ConvNorm
from resnest.segmentation.heads.common import Head, Predictor, check_batch, pool, pooled_norm, resize
from resnest.segmentation.spec import SegmenterSpec


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: parallel dilated convolutions, and a pooling of the image.

    Shapes: (N, in_chans, H, W) -> (N, channels, H, W).

    Raises:
        ResnestError: in training, when the batch-norm behind the image's mean would see a single image.
    """

    def __init__(self, in_chans: int, channels: int, spec: SegmenterSpec) -> None:
        super().__init__()
        self.branches = nn.ModuleList([ConvNorm(in_chans, channels, 1, spec.norm_kind)])
        for rate in spec.branch_rates:
            self.branches.append(ConvNorm(in_chans, channels, 3, spec.norm_kind, dilation=rate))
        self.image = ConvNorm(in_chans, channels, 1, pooled_norm(spec))
        self.project = ConvNorm(channels * (len(self.branches) + 1), channels, 1, spec.norm_kind)
        self.drop = nn.Dropout2d(spec.branch_dropout)

    def forward(self, x: Tensor) -> Tensor:
        seen = [F.relu(branch(x)) for branch in self.branches]
        pooled = pool(x, 1)  # (N, in_chans, 1, 1)
        check_batch(self.image, pooled)
        seen.append(F.relu(self.image(pooled)).expand(-1, -1, *x.shape[2:]))
        joined: Tensor = self.drop(F.relu(self.project(torch.cat(seen, dim=1))))
        return joined


class DeepLabV3Head(Head):
    """ASPP on the last map: [..., C5] -> (N, K, h, w)."""

    def __init__(self, in_chans: Sequence[int], spec: SegmenterSpec, num_classes: int) -> None:
        super().__init__()
        channels = spec.channels or max(1, in_chans[-1] // 8)
        self.aspp = ASPP(in_chans[-1], channels, spec)
        self.predict = Predictor(channels, channels, num_classes, spec)

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        logits: Tensor = self.predict(self.aspp(maps[-1]))
        return logits


class DeepLabV3PlusHead(Head):
    """ASPP on the last map, refined with the first: [C2, ..., C5] -> (N, K, H/4, W/4).

    Plain convolutions: the paper has separable ones on its Xception only (arXiv 1802.02611, sections 4.2 and 4.3).
    """

    def __init__(self, in_chans: Sequence[int], spec: SegmenterSpec, num_classes: int) -> None:
        super().__init__()
        channels = spec.channels or max(1, in_chans[-1] // 8)
        self.aspp = ASPP(in_chans[-1], channels, spec)
        self.low = ConvNorm(in_chans[0], spec.low_channels, 1, spec.norm_kind)
        self.refine = ConvNorm(channels + spec.low_channels, channels, 3, spec.norm_kind)
        self.predict = Predictor(channels, channels, num_classes, spec)

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        low = F.relu(self.low(maps[0]))
        high = resize(self.aspp(maps[-1]), low.shape[2:])
        logits: Tensor = self.predict(F.relu(self.refine(torch.cat([high, low], dim=1))))
        return logits
