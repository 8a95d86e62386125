"""FPN for pixels: a feature pyramid (arXiv 1612.03144) whose levels are enlarged and added (1901.02446, section 3.1).

head = FPNHead(backbone.channels, SegmenterSpec(head="fpn"), num_classes=21)
logits = head(backbone(images), images.shape[2:])             # (N, 21, H/4, W/4)
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from resnest.network.pyramid import ConvNorm
from resnest.segmentation.heads.common import Head, Logits, initialise, resize
from resnest.segmentation.spec import USUAL, SegmenterSpec


class Branch(nn.Module):
    """A level of the pyramid, convolved and enlarged to the size of each finer level in turn; of the finest only
    convolved.

    Shapes: (N, in_chans, h, w), sizes of the finer levels -> (N, out_chans, H/4, W/4).
    """

    def __init__(self, in_chans: int, out_chans: int, count: int, spec: SegmenterSpec) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            ConvNorm(out_chans if index else in_chans, out_chans, 3, spec.norm_kind) for index in range(count)
        )

    def forward(self, x: Tensor, sizes: Sequence[Sequence[int]]) -> Tensor:
        for index, conv in enumerate(self.convs):
            x = F.relu(conv(x))
            if index < len(sizes):
                x = resize(x, sizes[index])
        return x


class FPNHead(Head):
    """[C2, ..., C5] -> (N, K, H/4, W/4)."""

    def __init__(self, in_chans: Sequence[int], spec: SegmenterSpec, num_classes: int) -> None:
        super().__init__()
        channels = spec.channels or USUAL["fpn"].channels
        assert channels
        coarse = list(in_chans[::-1])
        self.lateral = nn.ModuleList(nn.Conv2d(count, channels, 1) for count in coarse)
        self.branches = nn.ModuleList(
            Branch(channels, spec.segmentation_channels, max(1, finer), spec)
            for finer in range(len(coarse) - 1, -1, -1)
        )
        self.predict = Logits(spec.segmentation_channels, num_classes, 1, spec)
        initialise(self)

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        coarse = list(maps[::-1])
        level = self.lateral[0](coarse[0])
        levels = [level]
        for side, lateral in zip(coarse[1:], self.lateral[1:], strict=True):
            level = lateral(side) + F.interpolate(level, size=list(side.shape[2:]), mode="nearest")
            levels.append(level)
        sizes = [one.shape[2:] for one in coarse]
        seen = [
            branch(one, sizes[index + 1 :])
            for index, (branch, one) in enumerate(zip(self.branches, levels, strict=True))
        ]
        merged = seen[0]
        for one in seen[1:]:
            merged = merged + one
        logits: Tensor = self.predict(merged)
        return logits
