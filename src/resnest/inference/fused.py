"""Split attention in evaluation by the fused operators (kernels/), with prepare.py's as the fallback.

fast = prepared(net, kernels=True).to("cuda", torch.bfloat16)
tune(fast, images)                   # resnest.kernels.autotune: the algorithm of the 3x3 convolution
"""

from __future__ import annotations

from torch import Tensor, nn

from resnest.inference.folded import FusedConv, PreparedSplitAttention
from resnest.kernels.autotune import ConvAlgorithm, Run, convolve
from resnest.kernels.fuse import pool_stride
from resnest.kernels.operators import attend, convolve_attend, takes
from resnest.kernels.reference import packed
from resnest.network.split_attention import SplitAttention


class KernelAttention(PreparedSplitAttention):
    """A prepared split attention, and the average pool after it, in three launches and a convolution."""

    packed: Tensor

    def __init__(self, block: SplitAttention, pool: nn.Module) -> None:
        super().__init__(block)
        self.pool = pool
        self.logits = FusedConv.of(block.fc2, relu=False)  # of both splits: the softmax is the operator's
        self.register_buffer("packed", packed(self.conv.weight, self.conv.groups), persistent=False)
        self.algorithm: ConvAlgorithm = "grouped"

    def forward(self, x: Tensor) -> Tensor:
        if not self._runs_on(x):
            return self.pool(super().forward(x))  # type: ignore[no-any-return]
        return self._run(x, self.algorithm)

    def runs(self, x: Tensor) -> dict[ConvAlgorithm, Run]:
        """See `Tunable`."""
        if not self._runs_on(x):
            return {}
        dense: tuple[ConvAlgorithm, ...] = ("dense",) if self.conv.groups > 1 else ()
        algorithms: tuple[ConvAlgorithm, ...] = ("grouped", *dense, "triton")
        return {name: lambda name=name: self._run(x, name) for name in algorithms}  # type: ignore[misc]

    def _run(self, x: Tensor, algorithm: ConvAlgorithm) -> Tensor:
        assert self.conv.bias is not None
        layers = self.fc1.weight, self.fc1.bias, self.logits.weight, self.logits.bias
        numbers, stride = (self.radix, self.cardinality), pool_stride(self.pool)
        if algorithm == "triton":
            geometry = int(self.conv.stride[0]), int(self.conv.dilation[0]), stride
            v: Tensor = convolve_attend(x, self.packed, self.conv.bias, *layers, *numbers, *geometry)
        else:
            v = attend(convolve(x, self.conv, algorithm), self.conv.bias, *layers, *numbers, stride)
        return v

    def _runs_on(self, x: Tensor) -> bool:
        is_folded = isinstance(self.bn1, nn.Identity)  # a layer norm is not
        return is_folded and takes(x)
