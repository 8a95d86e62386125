"""Convolutions with batch norm folded in: the layers of networks prepared for inference.

conv = FusedConv.of(conv, norm, relu=True)       # exact up to rounding: computed in float64
conv(x, plus=shortcut)                           # convolution, sum, ReLU
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.network.norm import FrozenStatsBatchNorm2d
from resnest.network.split_attention import SplitAttention, radix_softmax, weigh

Norm = nn.BatchNorm2d | FrozenStatsBatchNorm2d


class FusedConv(nn.Conv2d):
    """A convolution with bias, optionally followed by a sum and ReLU."""

    relu: bool

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        out = super().forward(x)
        if plus is not None:
            out = out.add_(plus)
        return F.relu(out, inplace=True) if self.relu else out

    @classmethod
    def of(cls, conv: nn.Module, norm: nn.Module | None = None, *, relu: bool) -> FusedConv:
        """A convolution and the norm after it, folded for evaluation; computed in float64."""
        assert isinstance(conv, nn.Conv2d)
        weight = conv.weight.double()
        bias = torch.zeros_like(weight[:, 0, 0, 0]) if conv.bias is None else conv.bias.double()
        if norm is not None:
            assert isinstance(norm, Norm)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight.double() * torch.rsqrt(norm.running_var.double() + norm.eps)  # (O,)
            weight = weight * scale[:, None, None, None]
            bias = norm.bias.double() + (bias - norm.running_mean.double()) * scale
        return cls.like(conv, weight, bias, relu)

    @classmethod
    def like(cls, conv: nn.Conv2d, weight: Tensor, bias: Tensor, relu: bool) -> FusedConv:
        """A convolution with these weights, (O, I/groups, k, k) and (O,), and the geometry and type of `conv`."""
        fused = cls(
            conv.in_channels,
            weight.shape[0],
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            device="meta",  # no random numbers are drawn for weights that are replaced
        )
        fused.relu = relu
        fused.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
        fused.bias = nn.Parameter(bias.to(conv.weight.dtype), requires_grad=False)
        return fused.train(conv.training)

    def difference(self, cardinality: int) -> FusedConv:
        """The difference of fc2's logits, split 0 minus split 1: (N, I, 1, 1) -> (N, C, 1, 1).

        The outputs are cardinality-major, (K, R, C/K), and the channels of one split (K, C/K): the order stays.
        """
        assert self.bias is not None
        weight, bias = (values.double().unflatten(0, (cardinality, 2, -1)) for values in (self.weight, self.bias))
        weight, bias = ((values[:, 0] - values[:, 1]).flatten(0, 1) for values in (weight, bias))
        return self.like(self, weight, bias, self.relu)


class PreparedSplitAttention(nn.Module):
    """`SplitAttention` with its norms folded, and one logit per channel if there are two splits."""

    def __init__(self, block: SplitAttention) -> None:
        super().__init__()
        self.radix, self.cardinality = block.radix, block.cardinality
        self.conv = FusedConv.of(block.conv, block.bn0, relu=True)
        foldable = isinstance(block.bn1, Norm)  # a layer norm depends on its input
        self.fc1 = FusedConv.of(block.fc1, block.bn1 if foldable else None, relu=foldable)
        self.bn1 = nn.Identity() if foldable else nn.Sequential(block.bn1, nn.ReLU())
        fc2 = FusedConv.of(block.fc2, relu=False)
        self.fc2 = fc2.difference(self.cardinality) if self.radix == 2 else fc2

    def forward(self, x: Tensor) -> Tensor:
        splits: Tensor = self.conv(x)  # U: (N, R*C, H, W)
        pooled = splits.mean((2, 3), keepdim=True)  # (N, R*C, 1, 1)
        s = pooled.unflatten(1, (self.radix, -1)).sum(1)  # (N, C, 1, 1)
        logits: Tensor = self.fc2(self.bn1(self.fc1(s)))
        if self.radix != 2:
            return weigh(splits, radix_softmax(logits, self.radix, self.cardinality), self.radix)
        first, second = splits.chunk(2, 1)
        a = logits.sigmoid()  # (N, C, 1, 1)
        if torch.compiler.is_exporting():
            return first * a + second * (1 - a)  # other engines have no lerp; exporters write it with a branch
        return torch.lerp(second, first, a)  # V: (N, C, H, W)
