"""Batch-norm over all processes of a run: statistics of the whole step, not of one device's share (paper, section 4.2).

    synchronise_norms(net)            # in place, before the optimiser is built

torch's own needs a GPU. On a CPU the same statistics come from plain sums, so that what runs on many GPUs can be
tried and tested on any machine.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class SyncBatchNorm2d(nn.SyncBatchNorm):
    """`torch.nn.SyncBatchNorm` that works on a CPU too. Same parameters, buffers and results."""

    def forward(self, input: Tensor) -> Tensor:
        alone = not dist.is_initialized() or dist.get_world_size() == 1
        if alone or not self.training or input.device.type != "cpu":
            return super().forward(input)
        x = input.float()
        count = _total(torch.full((1,), x.numel() / x.shape[1]))  # values of a channel, on all processes
        mean = _total(x.sum((0, 2, 3))) / count  # (C,)
        centred = x - mean[:, None, None]
        variance = _total(centred.square().sum((0, 2, 3))) / count  # (C,)
        if self.track_running_stats:
            self._remember(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class _Total(torch.autograd.Function):
    """Sum over all processes. Everybody's loss depends on everybody's input, so gradients are summed as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _sum(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _sum(gradients[0])


def _sum(x: Tensor) -> Tensor:
    x = x.contiguous().clone()
    dist.all_reduce(x)
    return x


def _total(x: Tensor) -> Tensor:
    total: Tensor = _Total.apply(x)
    return total


def synchronise_norms(net: nn.Module) -> int:
    """Replace every batch-norm in `net`, keeping its parameters and buffers; returns how many there are.

    Frozen and layer norms stay as they are.
    """
    found = [
        (module, name, child)
        for module in net.modules()
        for name, child in module.named_children()
        if isinstance(child, nn.BatchNorm2d)
    ]
    for module, name, norm in found:
        assert norm.momentum is not None
        other = SyncBatchNorm2d(norm.num_features, eps=norm.eps, momentum=norm.momentum)
        other._parameters.update(norm._parameters)
        other._buffers.update(norm._buffers)
        setattr(module, name, other.train(norm.training))
    return len(found)
