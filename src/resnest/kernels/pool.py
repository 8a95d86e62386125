"""Kernel 1: norm, ReLU, sum over splits and pixels in one pass over y (section 3.1: s, here times the pixels)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from resnest.kernels.plain import accumulator
from resnest.kernels.tiles import LAUNCH, as_map, load_z, parts_of, sum_type, tile_of


def pool_splits(y: Tensor, scale: Tensor | None, shift: Tensor | None, radix: int) -> Tensor:
    """`plain.pool_splits`: (N, R*C, H, W) -> sums (N, T, C), in T parts of the pixels."""
    x = as_map(y)
    images, channels = len(y), y.shape[1] // radix
    tile = tile_of(x, channels)
    blocks = triton.cdiv(channels, tile.channels)
    parts = parts_of(x, tile, images * blocks)
    out = torch.empty((images, parts, channels), dtype=accumulator(y.dtype), device=y.device)
    _pool_kernel[images * parts, blocks](
        x.tensor, scale, shift, out, channels, x.pixels, parts, *x.strides,
        RADIX=radix, BLOCK_P=tile.pixels, BLOCK_C=tile.channels, SUM=sum_type(y.dtype), **LAUNCH,
    )  # fmt: skip
    return out


@triton.jit
def _pool_kernel(
    y, scale, shift, out, channels, pixels, parts, stride_n, stride_c, stride_p,
    RADIX: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """One part of an image's pixels, for BLOCK_C channels of all splits."""
    image, part = tl.program_id(0) // parts, tl.program_id(0) % parts
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    known = c < channels
    y += image.to(tl.int64) * stride_n
    total = tl.zeros([BLOCK_P, BLOCK_C], SUM)
    for start in range(part * BLOCK_P, pixels, parts * BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        inside = (p < pixels)[:, None] & known[None, :]
        for r in tl.static_range(RADIX):
            channel = r * channels + c
            at = p[:, None] * stride_p + channel[None, :] * stride_c
            z = load_z(y, scale, shift, at, inside, channel, known, SUM)
            total += tl.where(inside, tl.maximum(z, 0.0), 0.0)
    tl.store(out + tl.program_id(0) * channels + c, tl.sum(total, 0), mask=known)
