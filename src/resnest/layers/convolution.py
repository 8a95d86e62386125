"""A convolution with its norm, as pyramids and heads are made of.

ConvNorm(256, 256, 3, "group")
ConvNorm(2048, 256, 3, "batch", dilation=12)
"""

from __future__ import annotations

from math import gcd

from torch import Tensor, nn

from resnest.network.norm import BatchNorm2d, conv_norm
from resnest.spec import GROUPS, HeadNorm


class ConvNorm(nn.Module):
    """Convolution, then norm: (N, C, H, W) -> (N, out_chans, H, W). The convolution has a bias if there is no norm.

    A group norm has 32 groups, and fewer where 32 does not divide the channels.
    """

    def __init__(self, in_chans: int, out_chans: int, kernel_size: int, norm: HeadNorm, *, dilation: int = 1) -> None:
        super().__init__()
        padding = dilation * (kernel_size // 2)
        self.conv = nn.Conv2d(in_chans, out_chans, kernel_size, padding=padding, dilation=dilation, bias=norm == "none")
        self.norm: nn.Module = nn.Identity()
        if norm == "batch":
            self.norm = BatchNorm2d(out_chans)
        elif norm == "group":
            self.norm = nn.GroupNorm(gcd(GROUPS, out_chans), out_chans)

    def forward(self, x: Tensor) -> Tensor:
        return conv_norm(self.conv, self.norm, x)
