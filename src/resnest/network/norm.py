"""The norms of the network: batch norm that is cheap in inference, and the norms for the attention.

BatchNorm2d(64)                      # parameters, buffers and results of torch's own
conv_norm(conv, norm, x)             # norm(conv(x)), safe for forward hooks that keep the convolution's output
ATTENTION_NORMS["layer"](64)         # trains with one sample per device
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import _has_any_global_hook

from resnest.errors import ResnestError

IN_PLACE = (torch.float32, torch.float64)  # shorter types would round scale and shift before they are used


class BatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` that works in place where no gradient is needed.

    On a CPU most of the time of an eager batch-norm goes into fresh memory for its output (benchmarks/network.py
    measures the whole network). Every input must be an output of a convolution that nobody else reads: `conv_norm`
    sees to it. With a forward hook of its own the norm leaves its input alone. Traced and compiled graphs keep the
    plain operator, which exporters know how to fold.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not isinstance(input, Tensor):  # a Proxy of torch.fx, whose values and shape are not known
            return F.batch_norm(
                input,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                training=self.training,
                momentum=self.momentum,
                eps=self.eps,
            )
        if self.training and input.numel() == input.shape[1]:
            raise ResnestError(
                "training with one sample per device and one pixel per map: a batch-norm sees one value per channel and"
                " needs two or more. Use a batch of 2 or more, or larger images."
            )
        if not self.overwrites(input):
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        shift = self.bias - self.running_mean * scale
        out = None if _has_hooks(self) else input
        return torch.addcmul(shift[:, None, None], input, scale[:, None, None], out=out)

    def overwrites(self, input: Tensor) -> bool:
        """Whether to compute in place: no gradient is needed, and no graph is traced."""
        wants_gradient = self.training or input.requires_grad or torch.is_grad_enabled()
        return not wants_gradient and input.dtype in IN_PLACE and not _is_traced()


def conv_norm(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """norm(conv(x)); forward hooks of the convolution see its unnormalised output."""
    out: Tensor = conv(x)
    in_place = isinstance(out, Tensor) and isinstance(norm, BatchNorm2d) and norm.overwrites(out)
    if in_place and any(map(_has_hooks, conv.modules())):
        out = out.clone()
    normalised: Tensor = norm(out)
    return normalised


class ConvNormSequential(nn.Sequential):
    """`torch.nn.Sequential` in which a norm follows a convolution as in `conv_norm`."""

    def forward(self, input: Tensor) -> Tensor:
        steps = list(self)
        while steps:
            step = steps.pop(0)
            if isinstance(step, nn.Conv2d) and steps and isinstance(steps[0], nn.BatchNorm2d):
                input = conv_norm(step, steps.pop(0), input)
            else:
                input = step(input)
        return input


class FrozenStatsBatchNorm2d(nn.Module):
    """Batch norm that uses its running statistics in training too; weight and bias are trained.

    Same names in the state as batch-norm's, so that published weights load. Not a kind of `torch.nn.BatchNorm2d`:
    `SyncBatchNorm.convert_sync_batchnorm` would make one of it that updates its statistics.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )


def _layer_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(1, channels)  # on a 1x1 map, one group is layer normalisation


ATTENTION_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "frozen": FrozenStatsBatchNorm2d,
    "layer": _layer_norm,
}


def _has_hooks(module: nn.Module) -> bool:
    """Whether a hook may keep the module's input or output; global hooks count too."""
    return bool(module._forward_hooks or module._forward_pre_hooks or _has_any_global_hook())


def _is_traced() -> bool:
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
