"""The fused operators' functions in plain torch: the reference for the Triton kernels, and the fallback.

Symbols as in network/split_attention.py, and
    y       (N, R*C, H, W)   what the 3x3 convolution gives, before its norm
    scale, shift  (R*C,)     the norm: U = relu(y * scale + shift)
    xhat                     (y - mean) * rstd
    V       (N, C, H', W')   the weighted sum, after the 3x3 average pool of stride `pool`; 0: no pool
    dV                       its gradient
Sums and small tensors have the type of `accumulator`; V and the gradient of y have that of y.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from resnest.network.split_attention import radix_softmax


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The accumulator type of a type."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def moments(y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (biased) of every channel: (N, R*C, H, W) -> twice (R*C,)."""
    variance, mean = torch.var_mean(y.to(accumulator(y.dtype)), (0, 2, 3), correction=0)
    return mean, variance


def pool_splits(y: Tensor, scale: Tensor | None, shift: Tensor | None, radix: int) -> Tensor:
    """Sums over pixels and splits of U: (N, R*C, H, W) -> (N, T, C), in T parts still to be summed."""
    sums: Tensor = _activated(y, scale, shift).sum((2, 3)).unflatten(1, (radix, -1))  # T = R here
    return sums


def split_convolution(
    x: Tensor, weight: Tensor, bias: Tensor, radix: int, groups: int, stride: int, dilation: int
) -> tuple[Tensor, Tensor]:
    """The 3x3 convolution with its norm folded, ReLU, and the sums of `pool_splits`: U and sums (N, T, C).

    weight: (G * 9, inputs of a group, outputs of a group), as `packed` lays it.
    """
    unpacked = weight.unflatten(0, (groups, 9)).permute(0, 3, 2, 1).flatten(0, 1).unflatten(2, (3, 3))  # (O, I/G, 3, 3)
    u = F.conv2d(x, unpacked, bias.to(x.dtype), stride, dilation, dilation, groups).relu_()
    return u.contiguous(memory_format=torch.channels_last), pool_splits(u, None, None, radix)


def packed(weight: Tensor, groups: int) -> Tensor:
    """A 3x3 convolution's weight, (O, I/G, 3, 3), for `split_convolution`: (G * 9, I/G, O/G), row by row."""
    laid: Tensor = weight.unflatten(0, (groups, -1)).flatten(3).permute(0, 3, 2, 1).flatten(0, 1)
    return laid.contiguous()


def first_layer(s: Tensor, weight: Tensor, bias: Tensor, cardinality: int) -> tuple[Tensor, Tensor, Tensor]:
    """fc1 and the moments of its outputs over the batch: (N, C) -> (N, I), (I,), (I,)."""
    before = grouped(s, weight, bias, cardinality)
    variance, mean = torch.var_mean(before, 0, correction=0)
    return before, mean, variance


def second_layer(
    before: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, cardinality: int
) -> Tensor:
    """Norm, ReLU and fc2: (N, I) -> G(s), (N, R*C), cardinality-major."""
    return grouped(torch.relu(torch.addcmul(shift, before, scale)), weight, bias, cardinality)


def attention_logits(
    partial: Tensor,
    pixels: int,
    weight1: Tensor,
    scale: Tensor | None,
    shift: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    cardinality: int,
) -> Tensor:
    """G(s) in evaluation, from the sums of `pool_splits`: (N, T, C) -> (N, R*C), cardinality-major.

    scale, shift: of the hidden layer, fc1's bias and the norm together; (I,).
    """
    before = grouped(partial.sum(1) / pixels, weight1, None, cardinality)
    hidden = torch.relu(before + shift if scale is None else torch.addcmul(shift, before, scale))
    return grouped(hidden, weight2, bias2, cardinality)


def weigh_splits(
    y: Tensor, scale: Tensor | None, shift: Tensor | None, logits: Tensor, radix: int, cardinality: int, pool: int
) -> Tensor:
    """V from y and G(s): (N, R*C, H, W), (N, R*C) -> (N, C, H', W')."""
    a = attention(logits, radix, cardinality)[:, :, None, None]  # (N, R*C, 1, 1)
    weighed: Tensor = (_activated(y, scale, shift) * a).unflatten(1, (radix, -1)).sum(1)
    if pool:
        weighed = F.avg_pool2d(weighed, 3, pool, padding=1)
    return weighed.to(y.dtype).contiguous(memory_format=layout(y))


def gradient_sums(
    d_v: Tensor, y: Tensor, mean: Tensor, rstd: Tensor, scale: Tensor, shift: Tensor, radix: int, pool: int
) -> Tensor:
    """The sums over pixels for the backward pass: (4, N, R*C).

    Sums over the pixels where U > 0 of dV, dV * xhat, 1 and xhat, dV brought back through the pool.
    """
    active, xhat = _active(y, scale, shift), _normalised(y, mean, rstd)
    spread = _unpooled(d_v, y, pool).repeat(1, radix, 1, 1) * active
    return torch.stack([part.sum((2, 3)) for part in (spread, spread * xhat, active, active * xhat)])


def input_gradient(
    d_v: Tensor,
    y: Tensor,
    mean: Tensor,
    rstd: Tensor,
    scale: Tensor,
    shift: Tensor,
    a: Tensor,
    d_pooled: Tensor,
    corrections: Tensor,
    radix: int,
    pool: int,
) -> Tensor:
    """The gradient of y: scale * (dz - c0 - xhat * c1), with dz = (a * dV + d_pooled) where U > 0.

    a: (N, R*C). d_pooled: (N, C), what the mean's gradient gives to every pixel. corrections: c0 and c1, (2, R*C),
    what batch-norm takes off because its moments depend on y (zero for fixed ones).
    """
    spread = _unpooled(d_v, y, pool).repeat(1, radix, 1, 1) * a[:, :, None, None]
    d_z = (spread + d_pooled.repeat(1, radix)[:, :, None, None]) * _active(y, scale, shift)
    c0, c1 = corrections[:, :, None, None].unbind()
    d_y = scale[:, None, None] * (d_z - c0 - _normalised(y, mean, rstd) * c1)
    return d_y.to(y.dtype).contiguous(memory_format=layout(y))


def attention(logits: Tensor, radix: int, cardinality: int) -> Tensor:
    """a from G(s): (N, R*C), cardinality-major -> (N, R*C), radix-major."""
    return radix_softmax(logits[:, :, None, None], radix, cardinality).flatten(1)


def grouped(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """A grouped 1x1 convolution of one-pixel maps: (N, G*I), (G*O, I, 1, 1) -> (N, G*O)."""
    weight = weight.flatten(1).unflatten(0, (groups, -1)).to(x.dtype)  # (G, O, I)
    by_group = torch.bmm(x.unflatten(1, (groups, -1)).transpose(0, 1), weight.mT)  # (G, N, O)
    out = by_group.transpose(0, 1).flatten(1)
    return out if bias is None else out.add(bias.to(x.dtype))


def layout(y: Tensor) -> torch.memory_format:
    """channels_last if y has that layout, else contiguous."""
    is_last = y.is_contiguous(memory_format=torch.channels_last) and not y.is_contiguous()
    return torch.channels_last if is_last else torch.contiguous_format


def _activated(y: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """U, in the accumulator's type."""
    z = y.to(accumulator(y.dtype))
    if scale is not None:
        z = z * scale[:, None, None]
    if shift is not None:
        z = z + shift[:, None, None]
    return torch.relu(z)


def _active(y: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """1 where U > 0, else 0."""
    return (_activated(y, scale, shift) > 0).to(accumulator(y.dtype))


def _normalised(y: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    return (y.to(accumulator(y.dtype)) - mean[:, None, None]) * rstd[:, None, None]


def _unpooled(d_v: Tensor, y: Tensor, pool: int) -> Tensor:
    """The gradient of the average pool: (N, C, H', W') -> (N, C, H, W)."""
    d_v = d_v.to(accumulator(y.dtype))
    if not pool:
        return d_v
    before = d_v.new_empty(len(y), d_v.shape[1], *y.shape[2:])
    spread: Tensor = torch.ops.aten.avg_pool2d_backward(d_v, before, [3, 3], [pool, pool], [1, 1], False, True, None)
    return spread
