"""Regularisation: stochastic depth, DropBlock, and the parameters with weight decay.

Stochastic depth: Huang et al., arXiv 1603.09382. DropBlock: Ghiasi et al., arXiv 1810.12890; ResNeSt uses it in
stages 3 and 4 with blocks of 3 pixels (paper, section 4). No decay on norms and biases: paper, section 4.1.

    set_drop_block(net, 0.1 * epoch / epochs)                              # the paper's linear schedule
    optimizer = torch.optim.SGD(decay_groups(net, 1e-4), lr=0.1)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WEIGHTS = ("weight", "offset_weight")  # of convolutions and linear layers; the second is a deformable convolution's


class DropPath(nn.Module):
    """Stochastic depth: zeroes the residual branch of random samples and scales up the others, preserving the mean."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        mask = x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(keep)  # (N, 1, 1, 1)
        return x * (mask / keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


class DropBlock2d(nn.Module):
    """Zeroes square blocks of a feature map; one mask for the whole batch, as in the Gluon code.

    `rate` is the target fraction of zeroed pixels. It is a plain attribute: the training loop raises it with
    `set_drop_block`. Maps smaller than the block use blocks as large as the map.
    """

    def __init__(self, rate: float = 0.0, block_size: int = 3) -> None:
        super().__init__()
        self.rate = rate
        self.block_size = block_size

    def forward(self, x: Tensor) -> Tensor:
        return drop_block(x, self.rate, self.block_size) if self.training and self.rate else x

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}, block_size={self.block_size}"


def drop_block(x: Tensor, rate: float, block_size: int) -> Tensor:
    """The function of `DropBlock2d` in training; one operator in a graph of torch.fx."""
    channels, height, width = x.shape[1:]
    block = min(block_size, height, width)
    block -= 1 - block % 2  # odd, so that a block has a centre
    # Share of block centres, arXiv 1810.12890, equation 1. As in the Gluon code they may lie anywhere, the edge
    # included, so that somewhat more than `rate` is zeroed on small maps: 12 % for 0.1 at 14 x 14.
    gamma = rate * height * width / block**2 / ((height - block + 1) * (width - block + 1))
    # A comparison, not bernoulli_(gamma): torch.compile would compile anew for every rate of a schedule.
    centres = (torch.rand(1, channels, height, width, device=x.device) < gamma).to(x.dtype)
    keep = 1 - F.max_pool2d(centres, block, stride=1, padding=block // 2)  # (1, C, H, W)
    fraction = keep.mean(dtype=torch.float32).clamp(min=1 / keep.numel())  # a float16 sum overflows at 65504
    return x * (keep / fraction).to(x.dtype)


torch.fx.wrap("drop_block")


def set_drop_block(net: nn.Module, rate: float) -> int:
    """Set the rate of every DropBlock in `net`; returns their number."""
    blocks = [module for module in net.modules() if isinstance(module, DropBlock2d)]
    for module in blocks:
        module.rate = rate
    return len(blocks)


def decay_groups(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Optimizer groups: weight decay for convolutions and linear layers, none for norms and biases.

    Decided by module type and parameter, not by name: matching names, as the official code does, misses the
    stem's and the shortcuts' batch-norms. Parameters that do not require a gradient are left out.
    """
    decayed: list[nn.Parameter] = []
    exempt: list[nn.Parameter] = []
    for module in net.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                is_weight = name in WEIGHTS and isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
                (decayed if is_weight else exempt).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]
