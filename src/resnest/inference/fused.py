"""The split attention in evaluation by the fused operators (kernels/), where they run; elsewhere as prepare.py has it.

fast = prepared(net, kernels=True).to("cuda", torch.bfloat16)
tune(fast, images)                   # resnest.kernels.ways: which way the 3x3 convolution takes
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from resnest.inference.prepare import FusedConv, PreparedSplitAttention
from resnest.kernels.attention import TYPES
from resnest.kernels.backend import chosen
from resnest.kernels.operators import attend, convolve_attend
from resnest.kernels.plain import packed
from resnest.kernels.ways import Run, Way, convolve
from resnest.network.split_attention import SplitAttention


class KernelAttention(PreparedSplitAttention):
    """A prepared split attention, and the average pool after it, in three launches and a convolution."""

    packed: Tensor

    def __init__(self, block: SplitAttention, pool: nn.AvgPool2d | None) -> None:
        super().__init__(block)
        self.pool, self.stride = pool, 0 if pool is None else int(pool.stride)  # type: ignore[arg-type]
        self.logits = FusedConv.of(block.fc2, relu=False)  # of both splits: the softmax is the operator's
        self.register_buffer("packed", packed(self.conv.weight, self.conv.groups), persistent=False)
        self.way: Way = "grouped"

    def forward(self, x: Tensor) -> Tensor:
        if not self._runs_on(x):
            v = super().forward(x)
            return v if self.pool is None else self.pool(v)
        return self._run(x, self.way)

    def runs(self, x: Tensor) -> dict[Way, Run]:
        """As `Tunable` has it."""
        if not self._runs_on(x):
            return {}
        ways: tuple[Way, ...] = ("grouped", "dense", "triton") if self.conv.groups > 1 else ("grouped", "triton")
        return {way: lambda way=way: self._run(x, way) for way in ways}  # type: ignore[misc]

    def _run(self, x: Tensor, way: Way) -> Tensor:
        assert self.conv.bias is not None
        layers = self.fc1.weight, self.fc1.bias, self.logits.weight, self.logits.bias
        numbers = self.radix, self.cardinality
        if way == "triton":
            geometry = int(self.conv.stride[0]), int(self.conv.dilation[0]), self.stride
            v: Tensor = convolve_attend(x, self.packed, self.conv.bias, *layers, *numbers, *geometry)
        else:
            v = attend(convolve(x, self.conv, None, way), self.conv.bias, *layers, *numbers, self.stride)
        return v

    def _runs_on(self, x: Tensor) -> bool:
        if torch.compiler.is_exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
            return False
        is_folded = isinstance(self.bn1, nn.Identity)  # a layer norm is not
        return is_folded and x.dtype in TYPES and chosen(x.device) == "triton"
