"""FCN (arXiv 1411.4038), and PSPNet (1612.01105) with its pooling in front of the same end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.errors import ResnestError
from resnest.network.pyramid import ConvNorm
from resnest.segmentation.heads.common import Head, Predictor, check_batch, pool, pooled_norm, resize
from resnest.segmentation.spec import SegmenterSpec


class FCNHead(Head):
    """Only a `Predictor` on the last map: [..., C5] -> (N, K, h, w)."""

    def __init__(self, in_chans: Sequence[int], spec: SegmenterSpec, num_classes: int) -> None:
        super().__init__()
        self.predict = Predictor(in_chans[-1], spec.channels or max(1, in_chans[-1] // 4), num_classes, spec)

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        logits: Tensor = self.predict(maps[-1])
        return logits


class PSPHead(Head):
    """The last map concatenated with its pyramid pooling: [..., C5] -> (N, K, h, w).

    Raises:
        ResnestError: in training, when the batch-norm behind the image's mean would see a single image.
    """

    def __init__(self, in_chans: Sequence[int], spec: SegmenterSpec, num_classes: int) -> None:
        super().__init__()
        self.bins, count = spec.bins, in_chans[-1]
        channels = count // len(spec.bins)
        if not channels:
            raise ResnestError(f"{len(spec.bins)} segmenter.bins cannot share {count} channels")
        self.pyramid = nn.ModuleList(
            ConvNorm(count, channels, 1, pooled_norm(spec) if cells == 1 else spec.norm_kind) for cells in spec.bins
        )
        self.predict = Predictor(count + channels * len(spec.bins), spec.channels or count // 4, num_classes, spec)

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        x = maps[-1]
        seen = [x]
        for cells, conv in zip(self.bins, self.pyramid, strict=True):
            pooled = pool(x, cells)  # (N, C5, cells, cells)
            check_batch(conv, pooled)
            seen.append(resize(F.relu(conv(pooled)), x.shape[2:]))
        logits: Tensor = self.predict(torch.cat(seen, dim=1))
        return logits
