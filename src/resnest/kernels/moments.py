"""Mean and variance of every channel in one pass over y (the statistics of bn0 in training)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from resnest.kernels.plain import accumulator
from resnest.kernels.tiles import LAUNCH, PROGRAMS, as_map, sum_type, tile_of


def moments(y: Tensor) -> tuple[Tensor, Tensor]:
    """`plain.moments`: (N, C, H, W) -> mean, variance, both (C,)."""
    x = as_map(y)
    images, channels = y.shape[:2]
    tile = tile_of(x, channels)
    blocks, tiles = triton.cdiv(channels, tile.channels), triton.cdiv(x.pixels, tile.pixels)
    parts = min(images * tiles, triton.cdiv(PROGRAMS, blocks), 256)
    sums = accumulator(y.dtype)
    found = torch.empty((3, parts, channels), dtype=sums, device=y.device)  # count, mean, sum of squared differences
    _moments_kernel[parts, blocks](
        x.tensor, found, images, channels, x.pixels, parts, *x.strides,
        BLOCK_P=tile.pixels, BLOCK_C=tile.channels, SUM=sum_type(y.dtype), **LAUNCH,
    )  # fmt: skip
    mean, variance = found.new_empty(channels), found.new_empty(channels)
    block_c = min(triton.next_power_of_2(channels), 16)
    _joined_kernel[triton.cdiv(channels, block_c),](
        found, mean, variance, channels, parts, PARTS=triton.next_power_of_2(parts), BLOCK_C=block_c, **LAUNCH
    )
    return mean, variance


@triton.jit
def _moments_kernel(
    y, found, images, channels, pixels, parts, stride_n, stride_c, stride_p,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """One part of the tiles of all images, for BLOCK_C channels.

    Each tile's own mean and squares join those before (Chan, Golub, LeVeque 1979): no sum of squares, whose
    difference from the squared mean would lose all digits where the mean is large.
    """
    part = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    known = c < channels
    tiles = tl.cdiv(pixels, BLOCK_P)
    count = tl.full([], 0.0, SUM)
    mean = tl.zeros([BLOCK_C], SUM)
    squares = tl.zeros([BLOCK_C], SUM)
    for index in range(part, images * tiles, parts):
        n = (index // tiles).to(tl.int64)
        p = (index % tiles) * BLOCK_P + tl.arange(0, BLOCK_P)
        inside = (p < pixels)[:, None] & known[None, :]
        value = tl.load(y + n * stride_n + p[:, None] * stride_p + c[None, :] * stride_c, mask=inside, other=0.0)
        value = value.to(SUM)
        more = tl.minimum(pixels - (index % tiles) * BLOCK_P, BLOCK_P).to(SUM)
        tile_mean = tl.sum(value, 0) / more
        apart = tl.where(inside, value - tile_mean[None, :], 0.0)
        difference = tile_mean - mean
        share = more / (count + more)
        squares += tl.sum(apart * apart, 0) + difference * difference * (count * share)
        mean += difference * share
        count += more
    at = part * channels + c
    tl.store(found + at, count + mean * 0, mask=known)
    tl.store(found + parts * channels + at, mean, mask=known)
    tl.store(found + 2 * parts * channels + at, squares, mask=known)


@triton.jit
def _joined_kernel(found, mean, variance, channels, parts, PARTS: tl.constexpr, BLOCK_C: tl.constexpr):
    """The parts of BLOCK_C channels joined."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    part = tl.arange(0, PARTS)
    inside = (part < parts)[:, None] & (c < channels)[None, :]
    at = part[:, None] * channels + c[None, :]
    counts = tl.load(found + at, mask=inside, other=0.0)
    means = tl.load(found + parts * channels + at, mask=inside, other=0.0)
    squares = tl.load(found + 2 * parts * channels + at, mask=inside, other=0.0)
    count = tl.maximum(tl.sum(counts, 0), 1.0)  # channels that are not there have none
    joined = tl.sum(counts * means, 0) / count
    apart = means - joined[None, :]
    total = tl.sum(squares + counts * apart * apart, 0)
    tl.store(mean + c, joined, mask=c < channels)
    tl.store(variance + c, total / count, mask=c < channels)
