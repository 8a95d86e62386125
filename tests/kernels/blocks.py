"""What tests of the kernels share: blocks with random weights, and what the network itself computes with them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.kernels.block import BATCH, FIXED, LAYER, Block
from resnest.network.split_attention import SplitAttention, weigh

LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


def attention_block(
    channels: int, *, radix: int, cardinality: int, norm: str = "batch", training: bool = True, **to: Any
) -> SplitAttention:
    """All of whose parameters and statistics count."""
    block = SplitAttention(channels, radix=radix, cardinality=cardinality, attention_norm=norm)  # type: ignore[arg-type]
    with torch.no_grad():
        for name, values in [*block.named_parameters(), *block.named_buffers()]:
            if name.endswith(("running_var", "bn0.weight", "bn1.weight")):
                values.uniform_(0.5, 1.5)
            elif values.is_floating_point():
                values.normal_(0, 0.4)
    return block.train(training).to(**to)


def maps(*shape: int, layout: str = "channels_last", **to: Any) -> Tensor:
    """A convolution's output, away from zero as real ones are."""
    return (
        (torch.randn(shape, dtype=torch.float64) * 1.5 + 0.3)
        .to(**{"dtype": torch.float32, **to})
        .contiguous(memory_format=LAYOUTS[layout])
    )


def as_the_network_does(block: SplitAttention, y: Tensor, pool: int) -> tuple[Tensor, SplitAttention]:
    """V by the network's own code, and the copy of the block that did it, whose statistics moved."""
    own = copy.deepcopy(block)
    splits = F.relu(own.bn0(y))
    v = weigh(splits, own.attention(splits), own.radix)
    return (nn.AvgPool2d(3, pool, padding=1)(v) if pool else v), own


def parameters(block: SplitAttention) -> list[Tensor]:
    """In the order in which the operator takes them; not the convolution's."""
    parts = block.bn0, block.fc1, block.bn1, block.fc2
    return [tensor for part in parts for tensor in (part.weight, part.bias)]  # type: ignore[misc]


def operands(block: SplitAttention, y: Tensor, pool: int, given: list[Tensor] | None = None) -> Block:
    """What `split_attention` takes."""
    bn0, bn1 = block.bn0, block.bn1
    gamma0, beta0, weight1, bias1, gamma1, beta1, weight2, bias2 = given or parameters(block)
    inner = LAYER if isinstance(bn1, nn.GroupNorm) else BATCH if type(bn1) is nn.BatchNorm2d and bn1.training else FIXED
    fixed0 = None if bn0.training else (bn0.running_mean, bn0.running_var)
    fixed1 = (bn1.running_mean, bn1.running_var) if inner == FIXED else None
    norms = bn0.eps, bn1.eps
    return Block(
        y, gamma0, beta0, *(fixed0 or (None, None)), weight1, bias1, gamma1, beta1, *(fixed1 or (None, None)),
        weight2, bias2, block.radix, block.cardinality, pool, inner, *norms,
    )  # type: ignore[arg-type]  # fmt: skip


def apart(got: Tensor, expected: Tensor) -> float:
    """Relative error in the norm."""
    got, expected = got.detach().double(), expected.detach().double()
    return float((got - expected).norm() / expected.norm().clamp(min=1e-6))
