"""Modulated deformable convolution (v2), arXiv 1811.11168, in place of a bottleneck's 3x3 convolution.

    Backbone(spec, convs=stage_convs((False, True, True, True), groups=2))      # stages 3 to 5, as the paper's

Every kernel position reads its input at a learned distance from its place, and weighs what it reads. Distances and
weights come from a second 3x3 convolution of the same input: the output of the bottleneck's conv1 after norm and ReLU
(DeformBottleneckBlock of the detectron2 fork), and after the pool of `avd_first`, which that code does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from resnest.errors import ResnestError
from resnest.network.resnest import ConvFactory


class DeformConv2d(nn.Conv2d):
    """A convolution with learned offsets (deformable, v2). Arguments as for `torch.nn.Conv2d`.

    Shapes: (N, in_channels, H, W) -> (N, out_channels, H', W'). `offset_weight` and `offset_bias` start at zero, so
    that it starts as half the plain convolution: sigmoid(0) of every value read.

    With K kernel positions, the G deformable groups have 3 * G * K channels of distances and weights. The first
    2 * G * K are distances, for each group and kernel position down and right in turn; the last G * K are weights
    before the sigmoid. detectron2 calls the three thirds x, y and mask, but joins the first two again as they were.
    Because the convolution that makes them has groups too, with G = 2 all weights come from the second half of the
    input channels: odd, and what the published weights have learned.

    The published code makes that convolution as wide as the stage's planes, here it has the real width: the same for
    the published width of 64.

    Types shorter than float32, autocast's too, are computed in float32: the operator knows no bfloat16, and a distance
    in pixels needs the digits.

    Raises:
        ResnestError: if the input channels cannot be divided into `deform_groups`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        deform_groups: int = 1,
    ) -> None:
        if in_channels % deform_groups:
            raise ResnestError(
                f"a deformable convolution of {in_channels} channels cannot have {deform_groups} deformable groups:"
                " choose a number that divides its channels"
            )
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.deform_groups = deform_groups
        channels = 3 * deform_groups * kernel_size**2
        self.offset_weight = nn.Parameter(torch.zeros(channels, in_channels // deform_groups, kernel_size, kernel_size))
        self.offset_bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            wide = torch.promote_types(x.dtype, torch.float32)
            return self._deform(x.to(wide)).to(x.dtype)

    def _deform(self, x: Tensor) -> Tensor:
        weight, offset_weight, offset_bias = (
            parameter.to(x.dtype) for parameter in (self.weight, self.offset_weight, self.offset_bias)
        )
        bias = None if self.bias is None else self.bias.to(x.dtype)
        both = F.conv2d(
            x, offset_weight, offset_bias, self.stride, self.padding, self.dilation, self.deform_groups
        )  # (N, 3*G*K, H', W')
        points = len(offset_bias) // 3
        offsets, mask = both.split([2 * points, points], dim=1)
        out: Tensor = deform_conv2d(
            x, offsets, weight, bias, self.stride, self.padding, self.dilation, mask=mask.sigmoid()
        )
        return out

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, deform_groups={self.deform_groups}"  # type: ignore[no-untyped-call]


def stage_convs(deform: Sequence[bool], groups: int) -> list[ConvFactory]:
    """Factories of the 3x3 convolutions of each stage, for `ResNeSt(..., convs=...)`.

    >>> [factory is nn.Conv2d for factory in stage_convs((False, True, True, True), groups=2)]
    [True, False, False, False]
    """
    deformable = partial(DeformConv2d, deform_groups=groups)
    return [deformable if stage else nn.Conv2d for stage in deform]
