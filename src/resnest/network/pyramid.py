"""The feature pyramid (Lin et al., arXiv 1612.03144), and the convolution with a norm that it and heads are made of.

conv = ConvNorm(2048, 256, 3, "batch", dilation=12)
pyramid = FeaturePyramid(backbone.channels, 256, norm="batch")
p2, p3, p4, p5, p6 = pyramid(backbone(images))
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.network.norm import sees_one_value, too_few_values
from resnest.spec import GROUPS, HeadNorm

STRIDES = (4, 8, 16, 32, 64)  # of P2 to P6


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
            self.norm = nn.BatchNorm2d(out_chans)
        elif norm == "group":
            self.norm = nn.GroupNorm(gcd(GROUPS, out_chans), out_chans)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        if not torch.jit.is_scripting() and sees_one_value(self.norm, out):  # type: ignore[attr-defined]
            raise too_few_values()
        return self.norm(out)  # type: ignore[no-any-return]


class FeaturePyramid(nn.Module):
    """C2..C5 -> P2..P6, all of `channels`: lateral 1x1, sum with the coarser level, 3x3; P6 is every other pixel of P5.

    Shapes: [(N, C_i, H/4, W/4), ...] -> [(N, channels, H/4, W/4), ..., (N, channels, H/64, W/64)].
    """

    def __init__(self, in_chans: Sequence[int], channels: int, norm: HeadNorm) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(ConvNorm(count, channels, 1, norm) for count in in_chans)
        self.output = nn.ModuleList(ConvNorm(channels, channels, 3, norm) for _ in in_chans)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)  # detectron2's FPN
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        merged = self.lateral[-1](maps[-1])
        levels: list[Tensor] = [self.output[-1](merged)]
        for index in range(len(maps) - 2, -1, -1):
            side = self.lateral[index](maps[index])
            merged = side + F.interpolate(merged, size=side.shape[-2:], mode="nearest")
            levels.insert(0, self.output[index](merged))
        return [*levels, F.max_pool2d(levels[-1], 1, stride=2)]
