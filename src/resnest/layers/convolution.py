"""A convolution with its norm, as pyramids and heads are made of.

conv_norm(256, 256, kernel_size=3, norm="group")
"""

from __future__ import annotations

from torch import Tensor, nn

from resnest.detector_spec import GROUPS, HeadNorm
from resnest.network.norm import BatchNorm2d


class ConvNorm(nn.Module):
    """Convolution, then norm: (N, C, H, W) -> (N, out_chans, H, W). The convolution has a bias if there is no norm."""

    def __init__(self, in_chans: int, out_chans: int, kernel_size: int, norm: HeadNorm) -> None:
        super().__init__()
        bias = norm == "none"
        self.conv = nn.Conv2d(in_chans, out_chans, kernel_size, padding=kernel_size // 2, bias=bias)
        self.norm: nn.Module = nn.Identity()
        if norm == "batch":
            self.norm = BatchNorm2d(out_chans)
        elif norm == "group":
            self.norm = nn.GroupNorm(GROUPS, out_chans)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x))
        return out
