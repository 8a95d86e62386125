"""The split attention in evaluation by the fused operators (kernels/), where they run; elsewhere as prepare.py has it.

fast = prepared(net, kernels=True).to("cuda", torch.bfloat16)
tune(fast, images)                   # resnest.kernels.ways: which way the 3x3 convolution takes
"""

from __future__ import annotations

from torch import Tensor, nn

from resnest.inference.prepare import FusedConv, PreparedSplitAttention
from resnest.kernels.fuse import pool_stride
from resnest.kernels.operators import attend, convolve_attend, takes
from resnest.kernels.plain import packed
from resnest.kernels.ways import Run, Way, convolve
from resnest.network.split_attention import SplitAttention


class KernelAttention(PreparedSplitAttention):
    """A prepared split attention, and the average pool after it, in three launches and a convolution."""

    packed: Tensor

    def __init__(self, block: SplitAttention, pool: nn.Module) -> None:
        super().__init__(block)
        self.pool = pool
        self.logits = FusedConv.of(block.fc2, relu=False)  # of both splits: the softmax is the operator's
        self.register_buffer("packed", packed(self.conv.weight, self.conv.groups), persistent=False)
        self.way: Way = "grouped"

    def forward(self, x: Tensor) -> Tensor:
        if not self._runs_on(x):
            return self.pool(super().forward(x))  # type: ignore[no-any-return]
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
        numbers, stride = (self.radix, self.cardinality), pool_stride(self.pool)
        if way == "triton":
            geometry = int(self.conv.stride[0]), int(self.conv.dilation[0]), stride
            v: Tensor = convolve_attend(x, self.packed, self.conv.bias, *layers, *numbers, *geometry)
        else:
            v = attend(convolve(x, self.conv, way), self.conv.bias, *layers, *numbers, stride)
        return v

    def _runs_on(self, x: Tensor) -> bool:
        is_folded = isinstance(self.bn1, nn.Identity)  # a layer norm is not
        return is_folded and takes(x)
