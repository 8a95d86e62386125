"""The norms of the network that torch does not have, and what a batch norm needs in training.

ATTENTION_NORMS["layer"](64)         # trains with one sample per device
sees_one_value(norm, x)              # a batch norm in training needs two or more
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.errors import ResnestError


def sees_one_value(norm: nn.Module, x: Tensor) -> bool:
    """Whether `norm` is a batch norm in training, and `x`, (N, C, H, W), has a single value per channel.

    One whose statistics are synchronised over processes is not asked: it sees the others' values, too.
    """
    known = isinstance(x, Tensor)  # not a Proxy of torch.fx
    return known and type(norm) is nn.BatchNorm2d and norm.training and x.numel() == x.shape[1]


def too_few_values() -> ResnestError:
    return ResnestError(
        "training with one sample per device and one pixel per map: a batch-norm sees one value per channel and"
        " needs two or more. Use a batch of 2 or more, or larger images."
    )


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
