"""Insert the fused operators into a network, in place: parameters, names and results stay.

    fuse(net)                            # before it is compiled; without a kernel its behaviour is unchanged

A block's 3x3 average pool goes into the operator as well, except while DropBlock works between the two.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from resnest.kernels.autotune import ConvAlgorithm, Run, convolve
from resnest.kernels.block import BATCH, FIXED, LAYER, Block, Outcome, convolved_side
from resnest.kernels.operators import split_attention, takes
from resnest.network.norm import FrozenStatsBatchNorm2d
from resnest.network.resnest import Bottleneck
from resnest.network.split_attention import SplitAttention

NORMS = (nn.BatchNorm2d, FrozenStatsBatchNorm2d)  # exactly these: a kind of them may do something else


class FusedSplitAttention(SplitAttention):
    """A `SplitAttention` with the DropBlock and the pool after it; one operator after the 3x3 convolution.

    It computes as the network itself does, on tensors on which no kernel runs, in graphs that are exported, and with
    norms that are synchronised over processes.
    """

    drop: nn.Module
    pool: nn.Module
    algorithm: ConvAlgorithm

    @classmethod
    def of(cls, block: SplitAttention, drop: nn.Module, pool: nn.Module) -> FusedSplitAttention:
        """The same block, with the same parameters, and the modules after it."""
        fused = cls.__new__(cls)
        fused.__dict__.update(block.__dict__)
        fused._modules = dict(block._modules)
        fused.drop, fused.pool, fused.algorithm = drop, pool, "grouped"
        return fused

    def forward(self, x: Tensor) -> Tensor:
        if not self._runs_on(x):
            return self.pool(self.drop(super().forward(x)))  # type: ignore[no-any-return]
        y = self._convolve(x)  # (N, R*C, H, W)
        drops = self.training and getattr(self.drop, "rate", 0) > 0
        outcome = Outcome(*split_attention(*self._block(y, pools=not drops)))
        for norm, mean, variance, values in (
            (self.bn0, outcome.mean0, outcome.var0, y[:, 0].numel()),
            (self.bn1, outcome.mean1, outcome.var1, len(y)),
        ):
            if _learns_moments(norm):
                _remember(norm, mean, variance, values)
        return self.pool(self.drop(outcome.v)) if drops else outcome.v

    def _convolve(self, x: Tensor) -> Tensor:
        return self.conv(x) if self.algorithm == "grouped" else convolve(x, self.conv, self.algorithm)

    def runs(self, x: Tensor) -> dict[ConvAlgorithm, Run]:
        """See `Tunable`: the convolution forward, and in training backward."""
        if type(self.conv) is not nn.Conv2d or self.conv.groups == 1:
            return {}

        def run(algorithm: ConvAlgorithm) -> None:
            inputs = x.detach().requires_grad_(self.training)
            with torch.set_grad_enabled(self.training):
                y = convolve(inputs, self.conv, algorithm)
            if self.training:
                torch.autograd.grad(y, (inputs, self.conv.weight), torch.ones_like(y))

        return {"grouped": lambda: run("grouped"), "dense": lambda: run("dense")}

    def _runs_on(self, x: Tensor) -> bool:
        """Whether a kernel supports these tensors and norms."""
        if not takes(x) or type(self.relu) is not nn.ReLU or type(self.relu1) is not nn.ReLU:
            return False
        if any(_learns_moments(norm) and norm.momentum is None for norm in (self.bn0, self.bn1)):
            return False
        if (_learns_moments(self.bn1) and len(x) < 2) or (_learns_moments(self.bn0) and self._values(x) < 2):
            return False  # the network itself says what to do
        is_layer_norm = isinstance(self.bn1, nn.GroupNorm) and self.bn1.num_groups == 1
        return type(self.bn0) in NORMS and (type(self.bn1) in NORMS or is_layer_norm)

    def _values(self, x: Tensor) -> int:
        """Number of values of the 3x3 convolution per channel."""
        stride = int(self.conv.stride[0])
        return len(x) * convolved_side(x.shape[2], stride) * convolved_side(x.shape[3], stride)

    def _block(self, y: Tensor, *, pools: bool) -> Block:
        fc1, fc2 = self.fc1, self.fc2
        bn0, bn1 = self.bn0, cast(nn.BatchNorm2d, self.bn1)  # or what has the same parameters
        learns0, learns1, by_layer = _learns_moments(bn0), _learns_moments(bn1), isinstance(bn1, nn.GroupNorm)
        assert fc1.bias is not None
        assert fc2.bias is not None
        return Block(
            y,
            bn0.weight,
            bn0.bias,
            None if learns0 else bn0.running_mean,
            None if learns0 else bn0.running_var,
            fc1.weight,
            fc1.bias,
            bn1.weight,
            bn1.bias,
            None if learns1 or by_layer else bn1.running_mean,
            None if learns1 or by_layer else bn1.running_var,
            fc2.weight,
            fc2.bias,
            radix=self.radix,
            cardinality=self.cardinality,
            pool=pool_stride(self.pool) if pools else 0,
            inner_norm=LAYER if by_layer else BATCH if learns1 else FIXED,
            eps0=bn0.eps,
            eps1=bn1.eps,
        )


def fuse(net: nn.Module) -> int:
    """Fuse every split attention of `net`; returns how many there are."""
    blocks = [module for module in net.modules() if isinstance(module, Bottleneck)]
    count = 0
    for block in blocks:
        if isinstance(block.conv2, SplitAttention) and not isinstance(block.conv2, FusedSplitAttention):
            block.conv2 = FusedSplitAttention.of(block.conv2, block.drop2, block.pool_after)
            block.drop2 = block.pool_after = nn.Identity()
            count += 1
    return count


def _learns_moments(norm: nn.Module) -> bool:
    """Whether a norm takes its moments from the batch in its current mode."""
    return isinstance(norm, nn.BatchNorm2d) and (norm.training or norm.running_mean is None)


@torch.no_grad()
def _remember(norm: nn.Module, mean: Tensor, variance: Tensor, values: int) -> None:
    """Update the running statistics as torch's batch norm does, with the unbiased variance."""
    assert isinstance(norm, nn.BatchNorm2d)
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    assert norm.momentum is not None
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
    norm.running_var.lerp_((variance * (values / (values - 1))).to(norm.running_var.dtype), norm.momentum)


def pool_stride(pool: nn.Module) -> int:
    """Stride of a block's 3x3 average pool; 0 if it has none."""
    return int(pool.stride) if isinstance(pool, nn.AvgPool2d) else 0  # type: ignore[arg-type]
