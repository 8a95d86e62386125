"""Kernel 4: the radix-grouped 3x3 convolution in channels_last as an implicit matrix product, with kernel 1 behind it.

For evaluation: norm folded, bias and ReLU in the epilogue, and the sums over pixels that the attention wants, so that
U is written once and read once more. A program computes BLOCK_P pixels of an image times BLOCK_O channels of a group;
the product runs over nine taps times the channels of the group. A tile never spans two images, which keeps the sums
apart; the price is an image's last tile, which is not full.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from resnest.kernels import plain
from resnest.kernels.attention import convolved_side
from resnest.kernels.backend import interpreted
from resnest.kernels.pool import pool_splits
from resnest.kernels.tiles import LAUNCH, as_map, precision

LEAST = 16  # sides of a matrix product of Triton (tl.dot)


def split_convolution(
    x: Tensor, weight: Tensor, bias: Tensor, radix: int, groups: int, stride: int, dilation: int
) -> tuple[Tensor, Tensor]:
    """`plain.split_convolution`: U, (N, R*C, H', W') in channels_last, and sums (N, T, C)."""
    if x.dtype == torch.float64:  # not for matrix units; for tests
        u, _ = plain.split_convolution(x, weight, bias, radix, groups, stride, dilation)
        return u, pool_splits(u, None, None, radix)
    x = x.contiguous(memory_format=torch.channels_last)
    images, height, width = len(x), *x.shape[2:]
    out_height, out_width = convolved_side(height, stride), convolved_side(width, stride)
    inputs, outputs = weight.shape[1:]  # of a group
    u = torch.empty(
        (images, groups * outputs, out_height, out_width),
        dtype=x.dtype, device=x.device, memory_format=torch.channels_last,
    )  # fmt: skip
    pixels = out_height * out_width
    is_short = x.element_size() == 2  # else sums fill the registers
    block_p = int(max(LEAST, min(triton.next_power_of_2(pixels), 128 if pixels > 256 and is_short else 64)))
    block_o = int(max(LEAST, min(triton.next_power_of_2(outputs), 128 if is_short else 64)))
    block_k = int(max(LEAST, min(triton.next_power_of_2(inputs), 64 if is_short else 32)))
    tiles = triton.cdiv(pixels, block_p)
    sums = torch.empty((images, tiles, groups * outputs), dtype=torch.float32, device=x.device)
    _convolution_kernel[images * tiles, groups * triton.cdiv(outputs, block_o)](
        x, weight, bias, u, sums, height, width, out_width, pixels, tiles, inputs, outputs, groups, *as_map(x).strides,
        STRIDE=stride, DILATION=dilation, BLOCK_P=block_p, BLOCK_O=block_o, BLOCK_K=block_k,
        PRECISION=precision(weight), INTERPRETED=interpreted(),
        num_warps=8 if block_p * block_o >= 128 * 128 else 4, num_stages=4, **LAUNCH,
    )  # fmt: skip
    return u, sums.view(images, tiles * radix, -1)  # a group's channels belong to one split


@triton.jit
def _convolution_kernel(
    x, weight, bias, u, sums, height, width, out_width, pixels, tiles, inputs, outputs, groups,
    stride_n, stride_c, stride_p,
    STRIDE: tl.constexpr, DILATION: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """A tile of U of one image and one group, and its channels' sums over the tile's pixels."""
    image = (tl.program_id(0) // tiles).to(tl.int64)
    blocks = tl.cdiv(outputs, BLOCK_O)
    group = tl.program_id(1) // blocks
    q = (tl.program_id(0) % tiles) * BLOCK_P + tl.arange(0, BLOCK_P)  # pixels of U
    o = (tl.program_id(1) % blocks) * BLOCK_O + tl.arange(0, BLOCK_O)
    there, known = q < pixels, o < outputs
    top, left = (q // out_width) * STRIDE - DILATION, (q % out_width) * STRIDE - DILATION
    x += image * stride_n + group * inputs * stride_c
    weight += group.to(tl.int64) * 9 * inputs * outputs
    total = tl.zeros([BLOCK_P, BLOCK_O], tl.float32)
    blocks_k = tl.cdiv(inputs, BLOCK_K)
    for step in range(9 * blocks_k):
        tap = step // blocks_k
        k = (step % blocks_k) * BLOCK_K + tl.arange(0, BLOCK_K)
        h, w = top + (tap // 3) * DILATION, left + (tap % 3) * DILATION
        inside = there & (h >= 0) & (h < height) & (w >= 0) & (w < width)
        at = (h * width + w)[:, None] * stride_p + k[None, :] * stride_c
        value = tl.load(x + at, mask=inside[:, None] & (k < inputs)[None, :], other=0.0)
        row = (tap * inputs + k)[:, None] * outputs + o[None, :]
        factor = tl.load(weight + row, mask=(k < inputs)[:, None] & known[None, :], other=0.0)
        if INTERPRETED:  # whose product takes the bits of a bfloat16 for a whole number (triton 3.9)
            value, factor = value.to(tl.float32), factor.to(tl.float32)
        total = tl.dot(value, factor, total, input_precision=PRECISION)
    channel = group * outputs + o
    total += tl.load(bias + channel, mask=known, other=0.0).to(tl.float32)[None, :]
    total = tl.where(there[:, None], tl.maximum(total, 0.0), 0.0)
    channels = groups * outputs
    at = (image * pixels + q[:, None]) * channels + channel[None, :]
    tl.store(u + at, total.to(u.dtype.element_ty), mask=there[:, None] & known[None, :])
    tl.store(sums + tl.program_id(0).to(tl.int64) * channels + channel, tl.sum(total, 0), mask=known)
