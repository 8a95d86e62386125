"""The semantic branch of Panoptic FPN (Kirillov et al., arXiv 1901.02446, section 3.1, figure 3).

branch = SemanticBranch(256, 128, num_outputs=54, norm="batch")
branch([p2, p3, p4, p5])                  # (N, 54, H, W), as large as the image
branch.loss(logits, targets)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.detection.boxes import Target
from resnest.network.pyramid import STRIDES, ConvNorm
from resnest.segmentation.spec import IGNORED
from resnest.spec import HeadNorm

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
        for place, target in zip(truth, targets, strict=True):
            assert target.semantic is not None
            height, width = target.size
            place[:height, :width] = target.semantic
        total = F.cross_entropy(logits.float(), truth, ignore_index=IGNORED, reduction="sum")
        return total / (truth != IGNORED).sum().clamp(min=1)


def _enlarge(maps: Tensor, factor: int) -> Tensor:
    return F.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)
