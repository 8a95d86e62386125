"""scSE: weights for channels and for pixels (arXiv 1803.02579).

x = SCSE(64)(x)                    # (N, 64, H, W), of the same size
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from resnest.segmentation.heads.common import pool

REDUCTION = 16  # of the channels inside (segmentation_models_pytorch; the paper has 2)


class SCSE(nn.Module):
    """The map times a weight per channel, plus the map times a weight per pixel: (N, C, H, W) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // REDUCTION)
        self.reduce = nn.Conv2d(channels, inner, 1)
        self.expand = nn.Conv2d(inner, channels, 1)
        self.pixels = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        by_channel = self.expand(F.relu(self.reduce(pool(x, 1)))).sigmoid()  # (N, C, 1, 1)
        by_pixel = self.pixels(x).sigmoid()  # (N, 1, H, W)
        weighed: Tensor = x * by_channel + x * by_pixel
        return weighed
