"""A network prepared for inference: the same function with less to compute.

    fast = prepare(net)                      # a copy of a network of any task; `net` stays as it is
    fast(images.contiguous(memory_format=torch.channels_last))

Exact up to rounding (1e-5 of the largest logit in float32, tests/test_prepare.py):

- every batch norm is folded into the convolution before it, the attention's own too;
- a convolution, its ReLU and the shortcut that is added to it are one step, which an engine may fuse (onednn.py);
- at radix 2 the softmax over two splits is the sigmoid of the difference of their logits, and the difference of two
  outputs of fc2 is one output of a layer half as large;
- weights are in channels_last, the fastest layout for the convolutions of oneDNN and cuDNN.

A deformable 3x3 stays as it is with what follows it, up to the next convolution; so does a group norm, which depends on
its input.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from resnest.inference.folded import FusedConv, Norm, PreparedSplitAttention
from resnest.network.pyramid import ConvNorm
from resnest.network.resnest import Backbone, Bottleneck, Trunk
from resnest.network.split_attention import SplitAttention
from resnest.tasks import task_of_network

Whole = TypeVar("Whole", bound=nn.Module)
Bare = TypeVar("Bare", bound=Trunk)


def prepare(net: Whole, *, memory_format: torch.memory_format = torch.channels_last, kernels: bool = False) -> Whole:
    """A copy of a backbone or of a network of any task for inference only; arguments as for `prepared`.

    Raises:
        ResnestError: a network that no task has.
    """
    how: Any = prepared if isinstance(net, Backbone) else task_of_network(net).prepared
    return cast(Whole, how(net, memory_format=memory_format, kernels=kernels))


def prepared(net: Bare, *, memory_format: torch.memory_format = torch.channels_last, kernels: bool = False) -> Bare:
    """A copy of a network for inference only; same shapes, other parameters.

    Args:
        net: a classifier or a backbone, on any device; its own parameters stay as they are.
        memory_format: of the weights; give inputs the same.
        kernels: take the fused operators where they run (fused.py).
    """
    fast = copy.deepcopy(net).eval().requires_grad_(False)
    _fold_stem(fast)
    for stage in (fast.layer1, fast.layer2, fast.layer3, fast.layer4):
        for index, block in enumerate(stage):
            assert isinstance(block, Bottleneck)
            stage[index] = PreparedBottleneck(block, kernels=kernels)
    return fast.to(memory_format=memory_format)


def prepared_whole(
    net: Whole, *, memory_format: torch.memory_format = torch.channels_last, kernels: bool = False
) -> Whole:
    """A copy of a multi-part network for inference only; arguments as for `prepared`."""
    backbone, done = net.get_submodule("backbone"), {}
    if isinstance(backbone, Trunk):  # in the copy's place, so that the backbone is not copied twice
        done = {id(backbone): prepared(backbone, memory_format=memory_format, kernels=kernels)}
    fast = copy.deepcopy(net, done).eval().requires_grad_(False)
    for module in fast.modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, Norm):
            module.conv = FusedConv.of(module.conv, module.norm, relu=False)
            module.norm = nn.Identity()
    return fast.to(memory_format=memory_format)


class PreparedBottleneck(nn.Module):
    """`Bottleneck` in evaluation, with its norms folded."""

    def __init__(self, block: Bottleneck, *, kernels: bool = False) -> None:
        super().__init__()
        self.conv1 = FusedConv.of(block.conv1, block.bn1, relu=True)
        self.pool_before = block.pool_before
        self.conv2, self.pool_after = _prepared_3x3(block, kernels)
        self.conv3 = FusedConv.of(block.conv3, block.bn3, relu=True)
        self.downsample: nn.Module = nn.Identity()
        if isinstance(block.downsample, nn.Sequential):
            pool, conv, norm = block.downsample
            self.downsample = nn.Sequential(pool, FusedConv.of(conv, norm, relu=False))

    def forward(self, x: Tensor) -> Tensor:
        weighed = self.pool_after(self.conv2(self.pool_before(self.conv1(x))))
        out: Tensor = self.conv3(weighed, self.downsample(x))
        return out


def _prepared_3x3(block: Bottleneck, kernels: bool) -> tuple[nn.Module, nn.Module]:
    """A bottleneck's 3x3 convolution, folded if it is a plain one, and the pool after it.

    With kernels the pool is inside.
    """
    conv2, pool = block.conv2, block.pool_after
    if isinstance(conv2, SplitAttention):
        if type(conv2.conv) is not nn.Conv2d:
            return conv2, pool
        if not kernels:
            return PreparedSplitAttention(conv2), pool
        from resnest.inference.fused import KernelAttention  # its operators take seconds to import

        return KernelAttention(conv2, pool), nn.Identity()
    if type(conv2) is nn.Conv2d:
        return FusedConv.of(conv2, block.bn2, relu=True), pool
    assert block.bn2 is not None
    return nn.Sequential(conv2, block.bn2, nn.ReLU(inplace=True)), pool


def _fold_stem(net: Trunk) -> None:
    """Fold the stem; the ReLU after its last convolution is the network's own."""
    last = net.conv1
    if isinstance(last, nn.Sequential):  # the deep stem: convolution, norm, ReLU, twice, and a convolution
        first, norm1, _, second, norm2, _, last = last
        net.conv1 = nn.Sequential(
            FusedConv.of(first, norm1, relu=True),
            FusedConv.of(second, norm2, relu=True),
            FusedConv.of(last, net.bn1, relu=False),
        )
    else:
        net.conv1 = FusedConv.of(last, net.bn1, relu=False)
    net.bn1 = nn.Identity()  # type: ignore[assignment]
