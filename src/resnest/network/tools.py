"""In-place changes of a network: frozen stages, synchronised batch norm; and networks of shapes alone.

parameter_stages(net)           # stem, layer1, layer2, layer3, layer4, head
freeze(net, 2)                  # stem and layer1
freeze_bn_statistics(net)       # of every batch-norm
synchronise_norms(net)          # before the optimiser is built
with shapes_only(): ...         # networks that are built within have no weights
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from resnest.errors import ResnestError
from resnest.network.norm import FrozenStatsBatchNorm2d
from resnest.network.regularize import DropBlock2d, DropPath
from resnest.network.resnest import ResNeSt, Trunk


def parameter_stages(net: nn.Module) -> list[nn.ModuleList]:
    """All parameters once, in six stages: stem, layer1 to layer4, head.

    The head of a network on a backbone is all but the backbone.
    """
    if isinstance(backbone := getattr(net, "backbone", None), nn.Module):
        head = nn.ModuleList(child for name, child in net.named_children() if name != "backbone")
        return [*parameter_stages(backbone)[:-1], head]
    assert isinstance(net, Trunk)
    fc = [net.fc] if isinstance(net, ResNeSt) else []
    parts = [net.conv1, net.bn1], [net.layer1], [net.layer2], [net.layer3], [net.layer4], fc
    return [nn.ModuleList(part) for part in parts]


def freeze(net: nn.Module, count: int) -> None:
    """Freeze the first `count` stages: no training, and evaluation mode whatever `net.train()` sets.

    Batch norms are replaced by norms with frozen statistics, under the same names in the state.
    """
    everything = parameter_stages(net)
    if not 0 <= count < len(everything):
        raise ResnestError(f"{count} parts cannot be frozen: 0 to {len(everything) - 1}, the head is always trained")
    if count:
        assert isinstance(net, Trunk)
        net.bn1 = _frozen(net.bn1)  # type: ignore[assignment]
    for part in parameter_stages(net)[:count]:
        part.requires_grad_(False)
        for module in list(part.modules()):
            for name, child in module.named_children():
                setattr(module, name, _frozen(child))


def freeze_bn_statistics(net: nn.Module) -> None:
    """Freeze the running statistics of every batch norm; scale and shift are still trained.

    For fine-tuning with few images a step, whose own statistics would be noise.
    """
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, _frozen(child))


def _frozen(module: nn.Module) -> nn.Module:
    """A norm or dropout in evaluation mode, for training; other modules unchanged."""
    if isinstance(module, DropBlock2d | DropPath):
        return nn.Identity()
    if not isinstance(module, nn.BatchNorm2d):
        return module
    frozen = FrozenStatsBatchNorm2d(module.num_features, module.eps)
    frozen.weight, frozen.bias = module.weight, module.bias
    for name, buffer in module.named_buffers():
        setattr(frozen, name, buffer)
    return frozen


class SyncBatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.SyncBatchNorm` that also works on a CPU: statistics over all processes (paper, section 4.2).

    Same parameters, buffers and results. On a CPU the statistics come from plain sums, so that what runs on many GPUs
    can be tried and tested on any machine.

    Not a kind of it: DistributedDataParallel refuses those on a CPU.
    """

    process_group = None
    _check_non_zero_input_channels = nn.SyncBatchNorm._check_non_zero_input_channels

    def forward(self, input: Tensor) -> Tensor:
        alone = not dist.is_initialized() or dist.get_world_size() == 1
        if alone or not self.training:
            return super().forward(input)
        if input.device.type != "cpu":
            return nn.SyncBatchNorm.forward(self, input)  # type: ignore[arg-type]
        x = input if input.dtype == torch.float64 else input.float()
        count = _total(x.new_full((1,), x.numel() / x.shape[1]))  # values of a channel, on all processes
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
    """Sum over all processes, forward and backward, as every loss depends on every process's input."""

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


def sum_over_processes(x: Tensor) -> Tensor:
    """The sum of all processes' tensors, without a gradient. Collective: all processes must call it."""
    return _sum(x) if dist.is_initialized() and dist.get_world_size() > 1 else x


def _total(x: Tensor) -> Tensor:
    total: Tensor = _Total.apply(x)
    return total


def synchronise_norms(net: nn.Module) -> int:
    """Replace every batch norm in `net`, keeping its parameters and buffers; returns their number.

    Frozen and layer norms stay as they are.
    """
    norms = [
        (module, name, child)
        for module in net.modules()
        for name, child in module.named_children()
        if isinstance(child, nn.BatchNorm2d) and not isinstance(child, SyncBatchNorm2d)
    ]
    for module, name, norm in norms:
        assert norm.momentum is not None
        other = SyncBatchNorm2d(norm.num_features, eps=norm.eps, momentum=norm.momentum)
        other._parameters.update(norm._parameters)
        other._buffers.update(norm._buffers)
        setattr(module, name, other.train(norm.training))
    return len(norms)


class _Undrawn(TorchFunctionMode):
    """Weights are not drawn: of the meta device that would import torch's compiler, 5 seconds and 250 MB."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.normal_ or func is nn.init.normal_:  # within a function of ours a mode is not asked again
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Within, tensors have only shapes (meta device)."""
    with torch.device("meta"), _Undrawn():
        yield
