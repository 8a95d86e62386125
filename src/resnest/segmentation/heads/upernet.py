"""UPerNet (arXiv 1807.10221): pyramid pooling on the last map, then a feature pyramid whose levels are joined.

    head = UPerNetHead(backbone.channels, SegmenterSpec(head="upernet"), num_classes=21)
    logits = head(backbone(images), images.shape[2:])             # (N, 21, H/4, W/4)

A layer norm over the channels comes before everything, as in segmentation_models_pytorch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.network.pyramid import ConvNorm
from resnest.segmentation.heads.common import Head, Logits, check_batch, initialise, pool, pooled_norm
from resnest.segmentation.spec import USUAL, SegmenterSpec

EPS = 1e-6


def enlarge(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, with pixels as squares: (N, C, h, w) -> (N, C, H, W)."""
    return F.interpolate(x, size=list(size), mode="bilinear", align_corners=False)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel: (N, C, H, W) -> the same."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class UPerNetHead(Head):
    """[C2, ..., C5] -> (N, K, H/4, W/4).

    Raises:
        ResnestError: in training, when the batch-norm behind the image's mean would see a single image.
    """

    def __init__(self, in_chans: Sequence[int], spec: SegmenterSpec, num_classes: int) -> None:
        super().__init__()
        channels, norm, last = spec.channels or USUAL["upernet"].channels, spec.norm_kind, in_chans[-1]
        assert channels
        self.bins = spec.bins
        self.norms = nn.ModuleList(ChannelNorm(count, eps=EPS) for count in in_chans)
        self.pyramid = nn.ModuleList(
            ConvNorm(last, channels, 1, pooled_norm(spec) if cells == 1 else norm) for cells in spec.bins
        )
        self.pooled = ConvNorm(last + len(spec.bins) * channels, channels, 3, norm)
        self.lateral = nn.ModuleList(ConvNorm(count, channels, 1, norm) for count in in_chans[-2::-1])
        self.output = nn.ModuleList(ConvNorm(channels, channels, 3, norm) for _ in in_chans[:-1])
        self.fuse = ConvNorm(len(in_chans) * channels, channels, 3, norm)
        self.predict = Logits(channels, num_classes, 1, spec)
        initialise(self)

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        normed = [norm(one) for norm, one in zip(self.norms, maps, strict=True)]
        levels = [self._pool(normed[-1])]
        for side, lateral in zip(normed[-2::-1], self.lateral, strict=True):
            levels.append(F.relu(lateral(side)) + enlarge(levels[-1], side.shape[2:]))
        fine = levels[-1].shape[2:]
        seen = [levels[0], *(F.relu(conv(one)) for conv, one in zip(self.output, levels[1:], strict=True))]
        joined = torch.cat([enlarge(one, fine) for one in seen[::-1]], dim=1)
        logits: Tensor = self.predict(F.relu(self.fuse(joined)))
        return logits

    def _pool(self, x: Tensor) -> Tensor:
        """The last map joined with its pyramid pooling: (N, C5, h, w) -> (N, channels, h, w)."""
        seen = [x]
        for cells, conv in zip(self.bins, self.pyramid, strict=True):
            pooled = pool(x, cells)  # (N, C5, cells, cells)
            check_batch(conv, pooled)
            seen.append(enlarge(F.relu(conv(pooled)), x.shape[2:]))
        return F.relu(self.pooled(torch.cat(seen, dim=1)))
