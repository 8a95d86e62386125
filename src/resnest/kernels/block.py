"""Forward and backward pass of a block after its 3x3 convolution, composed of one backend's functions.

U, xhat and the weights expanded over pixels are never stored. The forward pass reads y three times (moments, pool,
weighted sum) and writes V; the backward pass reads y and dV twice and writes dy. Two reads suffice because the gradient
of the attention needs sum(dV * U), and those of the batch norm sum(dz) and sum(dz * xhat), where
dz = a * dV + d_pooled on active pixels. Over the pixels of one image and channel a and d_pooled are constants, so all
of them follow from four sums (`reference.gradient_sums`) that depend on neither.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from resnest.errors import ResnestError
from resnest.kernels.reference import accumulator, attention, grouped, layout

# Where the norm inside the attention takes its moments: over the batch, over each sample's own values, or given.
BATCH, LAYER, FIXED = 0, 1, -1
TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Block(NamedTuple):
    """Inputs of the operator: y and the parameters of a `SplitAttention`, in the order of the schema."""

    y: Tensor  # (N, R*C, H, W), of any dense layout; one of TYPES
    gamma0: Tensor  # of bn0, (R*C,)
    beta0: Tensor
    mean0: Tensor | None  # its moments where they are fixed; None: those of the batch
    var0: Tensor | None
    weight1: Tensor  # of fc1, (I, C/K, 1, 1)
    bias1: Tensor  # (I,)
    gamma1: Tensor  # of bn1, (I,)
    beta1: Tensor
    mean1: Tensor | None  # its moments where `inner_norm` is FIXED
    var1: Tensor | None
    weight2: Tensor  # of fc2, (R*C, I/K, 1, 1)
    bias2: Tensor  # (R*C,)
    radix: int
    cardinality: int
    pool: int  # stride of the 3x3 average pool that follows, zeros counted; 0: none
    inner_norm: int  # BATCH, LAYER or FIXED
    eps0: float
    eps1: float


class Outcome(NamedTuple):
    """Outputs of the operator: V, and further ones for the caller or the backward pass."""

    v: Tensor  # (N, C, H', W')
    mean0: Tensor  # (R*C,)
    var0: Tensor
    s: Tensor  # (N, C)
    mean1: Tensor  # (I,); LAYER: (N,)
    var1: Tensor
    logits: Tensor  # G(s), (N, R*C), cardinality-major


class Saved(NamedTuple):
    """Tensors saved for the backward pass. Only y is large."""

    y: Tensor
    gamma0: Tensor
    beta0: Tensor
    weight1: Tensor
    bias1: Tensor
    gamma1: Tensor
    beta1: Tensor
    weight2: Tensor
    mean0: Tensor
    var0: Tensor
    s: Tensor
    mean1: Tensor
    var1: Tensor
    logits: Tensor


def forward(block: Block, parts: Any) -> Outcome:
    """The forward pass by the functions of a backend: reference.py, or triton_backend.py."""
    y, radix, cardinality, sums = block.y, block.radix, block.cardinality, accumulator(block.y.dtype)
    mean0, var0 = _fixed_moments(block.mean0, block.var0, sums) or parts.moments(y)
    scale0, shift0 = affine(block.gamma0, block.beta0, mean0, var0, block.eps0)
    s = parts.pool_splits(y, scale0, shift0, radix).sum(1) / pixels(y)  # (N, C)
    before, batch_mean, batch_var = parts.first_layer(s, block.weight1, block.bias1, cardinality)  # (N, I)
    mean1, var1 = _fixed_moments(block.mean1, block.var1, sums) or (batch_mean, batch_var)
    if block.inner_norm == LAYER:
        var1, mean1 = torch.var_mean(before, 1, correction=0)  # (N,)
    scale1, shift1 = affine(block.gamma1, block.beta1, _spread(mean1, block), _spread(var1, block), block.eps1)
    logits = parts.second_layer(before, scale1, shift1, block.weight2, block.bias2, cardinality)
    v = parts.weigh_splits(y, scale0, shift0, logits, radix, cardinality, block.pool)
    return Outcome(v, mean0, var0, s, mean1, var1, logits)


def backward(
    d_v: Tensor, saved: Saved, how: Block, *, batch_moments: bool, gradient_sums: Any, input_gradient: Any
) -> tuple[Tensor | None, ...]:
    """Gradients of the tensors of `Block`, in their order.

    Args:
        d_v: of V.
        saved: from the forward pass.
        how: its numbers; its tensors are not looked at.
        batch_moments: whether those of bn0 came from y.
        gradient_sums, input_gradient: the two passes over pixels.
    """
    y, radix, sums = saved.y, how.radix, saved.s.dtype
    rstd = torch.rsqrt(saved.var0 + how.eps0)
    scale, shift = affine(saved.gamma0, saved.beta0, saved.mean0, saved.var0, how.eps0)
    totals = gradient_sums(d_v, y, saved.mean0, rstd, scale, shift, radix, how.pool)
    active_dv, active_dv_xhat, active, active_xhat = totals.unbind()  # each (N, R*C)
    d_a = active_dv_xhat * saved.gamma0.to(sums) + active_dv * saved.beta0.to(sums)  # sum of dV * U
    a = attention(saved.logits, radix, how.cardinality)
    d_s, *d_layers = _layers_backward(_softmax_backward(d_a, a, radix, how.cardinality), saved, how)
    d_pooled = d_s / pixels(y)  # (N, C)
    each = d_pooled.repeat(1, radix)  # (N, R*C)
    d_beta0 = (a * active_dv + each * active).sum(0)
    d_gamma0 = (a * active_dv_xhat + each * active_xhat).sum(0)
    corrections = torch.stack([d_beta0, d_gamma0]) * (batch_moments / (len(y) * pixels(y)))
    d_y = input_gradient(d_v, y, saved.mean0, rstd, scale, shift, a, d_pooled, corrections, radix, how.pool)
    d_weight1, d_bias1, d_gamma1, d_beta1, d_weight2, d_bias2 = d_layers
    of_norm0 = d_gamma0.to(saved.gamma0.dtype), d_beta0.to(saved.beta0.dtype)
    return (d_y, *of_norm0, None, None, d_weight1, d_bias1, d_gamma1, d_beta1, None, None, d_weight2, d_bias2)


def _softmax_backward(d_a: Tensor, a: Tensor, radix: int, cardinality: int) -> Tensor:
    """From radix-major gradients of a, (N, R*C), to cardinality-major ones of G(s)."""
    if radix == 1:
        return d_a * a * (1 - a)
    d_a, a = (values.unflatten(1, (radix, cardinality, -1)) for values in (d_a, a))  # (N, R, K, C/K)
    d_logits = a * (d_a - (a * d_a).sum(1, keepdim=True))
    return d_logits.transpose(1, 2).flatten(1)


def _layers_backward(d_logits: Tensor, saved: Saved, how: Block) -> tuple[Tensor, ...]:
    """Gradients of s, fc1 (two), bn1 (two), fc2 (two); the hidden layer is recomputed from s."""
    s, gamma, along = saved.s, saved.gamma1.to(saved.s.dtype), how.inner_norm
    before = grouped(s, saved.weight1, saved.bias1, how.cardinality)  # (N, I)
    rstd = torch.rsqrt(_spread(saved.var1, how) + how.eps1)
    xhat = (before - _spread(saved.mean1, how)) * rstd
    z = torch.addcmul(saved.beta1.to(s.dtype), xhat, gamma)
    d_hidden, d_weight2, d_bias2 = _grouped_backward(d_logits, torch.relu(z), saved.weight2, how.cardinality)
    d_z = d_hidden * (z > 0)
    d_beta, d_gamma = d_z.sum(0), (d_z * xhat).sum(0)
    d_before = d_z * gamma
    if along != FIXED:
        means = d_before.mean(along, keepdim=True), (d_before * xhat).mean(along, keepdim=True)
        d_before = d_before - means[0] - xhat * means[1]
    d_s, d_weight1, d_bias1 = _grouped_backward(d_before * rstd, s, saved.weight1, how.cardinality)
    of_norm = d_gamma.to(saved.gamma1.dtype), d_beta.to(saved.beta1.dtype)
    return d_s, d_weight1, d_bias1, *of_norm, d_weight2, d_bias2


def _grouped_backward(d_out: Tensor, x: Tensor, weight: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Backward pass of `reference.grouped`: gradients of x, the weight and the bias."""
    d_out_g, x_g = (values.unflatten(1, (groups, -1)).transpose(0, 1) for values in (d_out, x))  # (G, N, O), (G, N, I)
    d_x = torch.bmm(d_out_g, weight.flatten(1).unflatten(0, (groups, -1)).to(x.dtype))  # (G, N, I)
    d_weight = torch.bmm(d_out_g.mT, x_g).reshape(weight.shape)  # (G, O, I)
    return d_x.transpose(0, 1).flatten(1), d_weight.to(weight.dtype), d_out.sum(0).to(weight.dtype)


def affine(gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """A norm as scale and shift, in the type of its moments."""
    scale = gamma.to(mean.dtype) * torch.rsqrt(variance + eps)
    return scale, beta.to(mean.dtype) - mean * scale


def _fixed_moments(mean: Tensor | None, variance: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
    """Fixed moments as outputs: copies, because an operator may not return its inputs."""
    return None if mean is None or variance is None else (mean.to(dtype, copy=True), variance.to(dtype, copy=True))


def _spread(moment: Tensor, block: Block) -> Tensor:
    """A moment of the inner norm, broadcast to (N, I)."""
    return moment[:, None] if block.inner_norm == LAYER else moment


def pixels(y: Tensor) -> int:
    return y.shape[2] * y.shape[3]


def pooled_side(side: int, pool: int) -> int:
    """Output side of a 3x3 pool with one pixel of padding; 0: no pool."""
    return (side - 1) // pool + 1 if pool else side


def convolved_side(side: int, stride: int) -> int:
    """Output side of a 3x3 convolution padded by its dilation."""
    return (side - 1) // stride + 1


def empty_v(y: Tensor, radix: int, pool: int) -> Tensor:
    """An empty V for y, in its memory layout."""
    height, width = (pooled_side(side, pool) for side in y.shape[2:])
    shape = len(y), y.shape[1] // radix, height, width
    return torch.empty(shape, dtype=y.dtype, device=y.device, memory_format=layout(y))


def check(y: Tensor, radix: int) -> None:
    """Raises ResnestError for inputs that the operators do not support."""
    prefix = f"split attention got {tuple(y.shape)}"
    if y.dim() != 4 or y.shape[1] % radix:
        raise ResnestError(f"{prefix}: it takes (N, {radix} * C, H, W)")
    if 0 in y.shape:
        raise ResnestError(f"{prefix}: nothing has no mean. Leave empty batches out")
    if y.dtype not in TYPES:
        raise ResnestError(f"split attention got {y.dtype}: it takes {', '.join(map(str, TYPES))}")
