"""The norms of the network: batch-norm that is cheap at inference, and the choices for inside the attention.

BatchNorm2d(64)                      # parameters, buffers and results of torch's own
ATTENTION_NORMS["layer"](64)         # trains with one sample per device
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.errors import ResnestError

IN_PLACE = (torch.float32, torch.float64)  # shorter types would round scale and shift before they are used


class BatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` that overwrites its input where no gradient is wanted.

    On a CPU most of the time of an eager batch-norm goes into fresh memory for its output (benchmarks/network.py
    measures the whole network). Every input is a convolution's output that nobody else reads; a forward hook that
    keeps such an output must copy it. Traced and compiled graphs keep the plain operator, which exporters know how
    to fold.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == input.shape[1]:
            raise ResnestError(
                "training with one sample per device and one pixel per map: a batch-norm sees one value per channel and"
                " needs two or more. Use a batch of 2 or more, or larger images."
            )
        wants_gradient = self.training or input.requires_grad or torch.is_grad_enabled()
        if wants_gradient or input.dtype not in IN_PLACE or _is_traced():
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        shift = self.bias - self.running_mean * scale
        return torch.addcmul(shift[:, None, None], input, scale[:, None, None], out=input)


class FrozenStatsBatchNorm2d(nn.Module):
    """Batch-norm that uses its running statistics in training too; weight and bias still learn.

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


def _is_traced() -> bool:
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
