"""Kernel 3: the two layers of the attention and the norm between them. One launch in evaluation, two in training.

In training the first gives fc1 and its moments over the batch, for which one program sees all rows of its outputs; the
second takes norm and ReLU as it loads them. In evaluation no moments are needed: a program computes the hidden layer,
BLOCK_I values at a time, and multiplies them by fc2 at once. Every program does so for its own outputs of fc2, which
repeats the first layer for each; the first layer is the smaller one, and programs need not wait for each other.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from resnest.kernels import reference
from resnest.kernels.forward import LAUNCH, MIN_DOT, precision


def first_layer(s: Tensor, weight: Tensor, bias: Tensor, cardinality: int) -> tuple[Tensor, Tensor, Tensor]:
    """`reference.first_layer`: (N, C) -> (N, I), and the moments of its columns, (I,) each."""
    if s.dtype == torch.float64:  # not for matrix units; for tests
        return reference.first_layer(s, weight, bias, cardinality)
    rows, inner = len(s), len(bias)
    before, mean, variance = s.new_empty(rows, inner), s.new_empty(inner), s.new_empty(inner)
    per_group = inner // cardinality
    block_o = _block(per_group, 32)
    _first_kernel[cardinality * triton.cdiv(per_group, block_o),](
        s.contiguous(), weight.contiguous(), bias, before, mean, variance, rows, weight.shape[1], per_group, inner,
        cardinality * weight.shape[1],
        BLOCK_N=_block(rows, 32), BLOCK_O=block_o, BLOCK_K=_block(weight.shape[1], 32),
        PRECISION=precision(weight), **LAUNCH,
    )  # fmt: skip
    return before, mean, variance


def second_layer(
    before: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, cardinality: int
) -> Tensor:
    """`reference.second_layer`: (N, I) -> G(s), (N, R*C). scale and shift: (I,), or (N, I)."""
    if before.dtype == torch.float64 or scale.dim() == 2:  # a layer norm has a scale for each sample
        return reference.second_layer(before, scale, shift, weight, bias, cardinality)
    out = before.new_empty(len(before), len(bias))
    _logits_kernel[_grid(out, cardinality)](
        before, None, scale, shift, weight.contiguous(), bias, out, *_sizes(before, 1, 1, None, weight, cardinality),
        **_blocks(out, weight.shape[1], weight.shape[1], cardinality), PRECISION=precision(weight), **LAUNCH,
    )  # fmt: skip
    return out


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
    """`reference.attention_logits`: sums over pixels, (N, T, C), -> G(s), (N, R*C)."""
    if partial.dtype == torch.float64:
        return reference.attention_logits(partial, pixels, weight1, scale, shift, weight2, bias2, cardinality)
    out = partial.new_empty(len(partial), len(bias2))
    sizes = _sizes(partial, partial.shape[1], pixels, weight1, weight2, cardinality)
    _logits_kernel[_grid(out, cardinality)](
        partial.contiguous(), weight1.contiguous(), scale, shift, weight2.contiguous(), bias2, out, *sizes,
        **_blocks(out, weight1.shape[1], weight2.shape[1], cardinality), PRECISION=precision(weight1), **LAUNCH,
    )  # fmt: skip
    return out


def _block(size: int, most: int) -> int:
    return int(max(MIN_DOT, min(triton.next_power_of_2(size), most)))


def _grid(out: Tensor, cardinality: int) -> tuple[int, int]:
    """Numbers of blocks: of rows, and of outputs of all cardinal groups."""
    rows, outputs = out.shape
    per_group = outputs // cardinality
    return triton.cdiv(rows, MIN_DOT), cardinality * triton.cdiv(per_group, _block(per_group, 64))


def _sizes(x: Tensor, parts: int, pixels: int, weight1: Tensor | None, weight2: Tensor, cardinality: int) -> Any:
    """Rows, parts, pixels; inputs, hidden values and outputs of a cardinal group; groups."""
    inner, outputs = weight2.shape[1], len(weight2) // cardinality
    inputs = inner if weight1 is None else weight1.shape[1]
    return len(x), parts, float(pixels), inputs, inner, outputs, cardinality


def _blocks(out: Tensor, inputs: int, inner: int, cardinality: int) -> dict[str, int]:
    return {
        "BLOCK_N": MIN_DOT,
        "BLOCK_K": _block(inputs, 32),
        "BLOCK_I": _block(inner, 32),
        "BLOCK_O": _block(out.shape[1] // cardinality, 64),
    }


@triton.jit
def load_matrix(x, row, column, rows, columns, stride):
    """Values (row, column) of a matrix, in float32; 0 outside."""
    inside = (row < rows) & (column < columns)
    return tl.load(x + row * stride + column, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _first_kernel(
    s, weight, bias, before, mean, variance, rows, inputs, per_group, inner, channels,
    BLOCK_N: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """BLOCK_O outputs of one cardinal group for all rows, and their moments, joined as in `moments`."""
    blocks = tl.cdiv(per_group, BLOCK_O)
    group = tl.program_id(0) // blocks
    o = (tl.program_id(0) % blocks) * BLOCK_O + tl.arange(0, BLOCK_O)
    known = o < per_group
    column = group * per_group + o
    added = tl.load(bias + column, mask=known, other=0.0).to(tl.float32)
    count = tl.full([], 0.0, tl.float32)
    average = tl.zeros([BLOCK_O], tl.float32)
    squares = tl.zeros([BLOCK_O], tl.float32)
    for start in range(0, rows, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        total = tl.zeros([BLOCK_N, BLOCK_O], tl.float32)
        for first in range(0, inputs, BLOCK_K):
            k = first + tl.arange(0, BLOCK_K)
            x = load_matrix(s + group * inputs, n[:, None], k[None, :], rows, inputs, channels)
            w = load_matrix(weight + group * per_group * inputs, o[None, :], k[:, None], per_group, inputs, inputs)
            total = tl.dot(x, w, total, input_precision=PRECISION)
        total += added[None, :]
        inside = (n < rows)[:, None] & known[None, :]
        tl.store(before + n[:, None] * inner + column[None, :], total, mask=inside)
        more = tl.minimum(rows - start, BLOCK_N).to(tl.float32)
        block_mean = tl.sum(tl.where(inside, total, 0.0), 0) / more
        apart = tl.where(inside, total - block_mean[None, :], 0.0)
        difference = block_mean - average
        fraction = more / (count + more)
        squares += tl.sum(apart * apart, 0) + difference * difference * (count * fraction)
        average += difference * fraction
        count += more
    tl.store(mean + column, average, mask=known)
    tl.store(variance + column, squares / count, mask=known)


@triton.jit
def _logits_kernel(
    x, weight1, scale, shift, weight2, bias2, out, rows, parts, pixels, inputs, inner, outputs, groups,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_O: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """BLOCK_O outputs of fc2 of one cardinal group for BLOCK_N rows.

    x: sums over pixels, (N, T, C), or without weight1 what fc1 gave, (N, I).
    """
    blocks = tl.cdiv(outputs, BLOCK_O)
    group = tl.program_id(1) // blocks
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    o = (tl.program_id(1) % blocks) * BLOCK_O + tl.arange(0, BLOCK_O)
    total = tl.zeros([BLOCK_N, BLOCK_O], tl.float32)
    for first_i in range(0, inner, BLOCK_I):
        i = first_i + tl.arange(0, BLOCK_I)
        known = i < inner
        if weight1 is None:
            hidden = load_matrix(x + group * inner, n[:, None], i[None, :], rows, inner, groups * inner)
        else:
            hidden = tl.zeros([BLOCK_N, BLOCK_I], tl.float32)
            for first_k in range(0, inputs, BLOCK_K):
                k = first_k + tl.arange(0, BLOCK_K)
                s = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
                for part in range(0, parts):
                    at = x + part * groups * inputs + group * inputs
                    s += load_matrix(at, n[:, None], k[None, :], rows, inputs, parts * groups * inputs)
                w = load_matrix(weight1 + group * inner * inputs, i[None, :], k[:, None], inner, inputs, inputs)
                hidden = tl.dot(s / pixels, w, hidden, input_precision=PRECISION)
        if scale is not None:
            hidden = hidden * tl.load(scale + group * inner + i, mask=known, other=0.0).to(tl.float32)[None, :]
        hidden += tl.load(shift + group * inner + i, mask=known, other=0.0).to(tl.float32)[None, :]
        hidden = tl.where(known[None, :], tl.maximum(hidden, 0.0), 0.0)
        w = load_matrix(weight2 + group * outputs * inner, o[None, :], i[:, None], outputs, inner, inner)
        total = tl.dot(hidden, w, total, input_precision=PRECISION)
    inside = (n < rows)[:, None] & (o < outputs)[None, :]
    total += tl.load(bias2 + group * outputs + o, mask=o < outputs, other=0.0).to(tl.float32)[None, :]
    tl.store(out + n[:, None] * (groups * outputs) + group * outputs + o[None, :], total, mask=inside)
