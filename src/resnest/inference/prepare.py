"""A network prepared for inference: the same function with less to compute.

    fast = prepared(net)                     # a copy; `net` stays as it is
    fast(images.contiguous(memory_format=torch.channels_last))

Three steps, exact up to rounding (1e-5 of the largest logit in float32, tests/test_prepare.py):

- every batch-norm goes into the convolution before it, the attention's own too (facts, section 7: "BN folding");
- at radix 2 the softmax over two splits is the sigmoid of the difference of their logits, and the difference of two
  outputs of fc2 is one output of a layer half as large;
- weights lie in channels_last, the layout that the convolutions of oneDNN and cuDNN run fastest in.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.network.norm import FrozenStatsBatchNorm2d
from resnest.network.resnest import Bottleneck, ResNeSt
from resnest.network.split_attention import SplitAttention, radix_softmax, weigh

Norm = nn.BatchNorm2d | FrozenStatsBatchNorm2d


def prepared(net: ResNeSt, *, memory_format: torch.memory_format = torch.channels_last) -> ResNeSt:
    """A copy of a network for inference alone; same shapes, other parameters.

    Args:
        net: a classifier or a backbone, on any device; its own parameters stay as they are.
        memory_format: of the weights; give inputs the same.
    """
    fast = copy.deepcopy(net).eval().requires_grad_(False)
    _fold_stem(fast)
    for module in list(fast.modules()):
        if isinstance(module, Bottleneck):
            _fold_bottleneck(module)
    return fast.to(memory_format=memory_format)


class PreparedSplitAttention(nn.Module):
    """`SplitAttention` with its norms folded, and one logit a channel where there are two splits."""

    def __init__(self, block: SplitAttention) -> None:
        super().__init__()
        self.radix, self.cardinality = block.radix, block.cardinality
        self.conv = folded(block.conv, block.bn0)
        foldable = isinstance(block.bn1, Norm)
        self.fc1 = folded(block.fc1, block.bn1) if foldable else block.fc1
        self.bn1 = nn.Identity() if foldable else block.bn1  # a layer norm depends on its input
        self.fc2 = _difference(block.fc2, block.cardinality) if block.radix == 2 else block.fc2

    def forward(self, x: Tensor) -> Tensor:
        splits = F.relu(self.conv(x), inplace=True)  # U: (N, R*C, H, W)
        pooled = splits.mean((2, 3), keepdim=True)  # (N, R*C, 1, 1)
        s = pooled.unflatten(1, (self.radix, -1)).sum(1)  # (N, C, 1, 1)
        logits = self.fc2(F.relu(self.bn1(self.fc1(s)), inplace=True))
        if self.radix != 2:
            return weigh(splits, radix_softmax(logits, self.radix, self.cardinality), self.radix)
        first, second = splits.chunk(2, 1)
        return torch.lerp(second, first, logits.sigmoid())  # V: (N, C, H, W)


def folded(conv: nn.Module, norm: nn.Module) -> nn.Conv2d:
    """One convolution that does what the two did in evaluation; computed in float64."""
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, Norm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() * torch.rsqrt(norm.running_var.double() + norm.eps)  # (O,)
    bias = 0 if conv.bias is None else conv.bias.double()
    merged = copy.copy(conv)
    merged._parameters = dict(conv._parameters)
    weight = conv.weight.double() * scale[:, None, None, None]
    shift = norm.bias.double() + (bias - norm.running_mean.double()) * scale
    merged.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
    merged.bias = nn.Parameter(shift.to(conv.weight.dtype), requires_grad=False)
    return merged


def _fold_stem(net: ResNeSt) -> None:
    last = net.conv1
    if isinstance(last, nn.Sequential):  # the deep stem: convolution, norm, ReLU, twice, and a convolution
        first, norm1, _, second, norm2, _, last = last
        net.conv1 = nn.Sequential(
            folded(first, norm1), nn.ReLU(inplace=True), folded(second, norm2), nn.ReLU(inplace=True), last
        )
        net.conv1[-1] = folded(last, net.bn1)
    else:
        net.conv1 = folded(last, net.bn1)
    net.bn1 = nn.Identity()  # type: ignore[assignment]


def _fold_bottleneck(block: Bottleneck) -> None:
    block.conv1, block.bn1 = folded(block.conv1, block.bn1), nn.Identity()  # type: ignore[assignment]
    block.conv3, block.bn3 = folded(block.conv3, block.bn3), nn.Identity()  # type: ignore[assignment]
    if isinstance(block.conv2, SplitAttention):
        block.conv2 = PreparedSplitAttention(block.conv2)
    elif block.bn2 is not None:
        block.conv2, block.bn2 = folded(block.conv2, block.bn2), nn.Identity()
    if isinstance(block.downsample, nn.Sequential):
        pool, conv, norm = block.downsample
        block.downsample = nn.Sequential(pool, folded(conv, norm))


def _difference(fc2: nn.Conv2d, cardinality: int) -> nn.Conv2d:
    """The logits of split 0 minus those of split 1: (N, I, 1, 1) -> (N, C, 1, 1).

    fc2's outputs are cardinality-major, (K, R, C/K), and the channels of one split (K, C/K): the order stays.
    """
    channels = fc2.out_channels // 2
    merged = nn.Conv2d(fc2.in_channels, channels, kernel_size=1, groups=fc2.groups, device=fc2.weight.device)
    for name in ("weight", "bias"):
        values = getattr(fc2, name).double().unflatten(0, (cardinality, 2, -1))
        halves = (values[:, 0] - values[:, 1]).flatten(0, 1)
        setattr(merged, name, nn.Parameter(halves.to(fc2.weight.dtype), requires_grad=False))
    return merged
