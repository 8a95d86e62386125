"""Kernel 2: softmax over the splits, norm, ReLU, weighted sum, and the average pool after it, in one pass over y."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from resnest.kernels.attention import empty_v
from resnest.kernels.tiles import LAUNCH, as_map, load_z, sum_type, tile_of


def weigh_splits(
    y: Tensor, scale: Tensor | None, shift: Tensor | None, logits: Tensor, radix: int, cardinality: int, pool: int
) -> Tensor:
    """`plain.weigh_splits`: (N, R*C, H, W) and G(s), (N, R*C) -> V, (N, C, H', W'), in the layout of y."""
    v = empty_v(y, radix, pool)
    x, out = as_map(y), as_map(v)
    channels, (height, width) = v.shape[1], y.shape[2:]
    tile = tile_of(out, channels, heavy=pool > 0)
    tiles = triton.cdiv(out.pixels, tile.pixels)
    _weigh_kernel[len(y) * tiles, triton.cdiv(channels, tile.channels)](
        x.tensor, scale, shift, logits, v, channels, height, width, v.shape[3], out.pixels, tiles,
        *x.strides, *out.strides,
        RADIX=radix, CARDINALITY=cardinality, POOL=pool,
        BLOCK_P=tile.pixels, BLOCK_C=tile.channels, SUM=sum_type(y.dtype), **LAUNCH,
    )  # fmt: skip
    return v


@triton.jit
def attention_weight(logits, c, known, r, channels, RADIX: tl.constexpr, CARDINALITY: tl.constexpr):
    """a of split r for channels c, from an image's cardinality-major G(s): a softmax over the splits, or a sigmoid."""
    per_group = channels // CARDINALITY
    first = (c // per_group) * (RADIX * per_group) + c % per_group  # of split 0
    own = tl.load(logits + first + r * per_group, mask=known, other=0.0)
    if RADIX == 1:
        return 1.0 / (1.0 + tl.exp(-own))
    largest = own
    for other in tl.static_range(RADIX):
        largest = tl.maximum(largest, tl.load(logits + first + other * per_group, mask=known, other=0.0))
    total = tl.zeros_like(own)
    for other in tl.static_range(RADIX):
        total += tl.exp(tl.load(logits + first + other * per_group, mask=known, other=0.0) - largest)
    return tl.exp(own - largest) / total


@triton.jit
def _weigh_kernel(
    y, scale, shift, logits, v, channels, height, width, out_width, out_pixels, tiles,
    stride_n, stride_c, stride_p, out_n, out_c, out_p,
    RADIX: tl.constexpr, CARDINALITY: tl.constexpr, POOL: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """A tile of V of one image."""
    image = (tl.program_id(0) // tiles).to(tl.int64)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    q = (tl.program_id(0) % tiles) * BLOCK_P + tl.arange(0, BLOCK_P)  # pixels of V
    known, there = c < channels, q < out_pixels
    y += image * stride_n
    logits += image * RADIX * channels
    total = tl.zeros([BLOCK_P, BLOCK_C], SUM)
    for r in tl.static_range(RADIX):
        channel = r * channels + c
        split = tl.zeros([BLOCK_P, BLOCK_C], SUM)
        if POOL == 0:
            inside = there[:, None] & known[None, :]
            at = q[:, None] * stride_p + channel[None, :] * stride_c
            split = tl.maximum(load_z(y, scale, shift, at, inside, channel, known, SUM), 0.0)
        else:
            for dh in tl.static_range(3):
                for dw in tl.static_range(3):
                    h = (q // out_width) * POOL + (dh - 1)
                    w = (q % out_width) * POOL + (dw - 1)
                    found = there & (h >= 0) & (h < height) & (w >= 0) & (w < width)
                    inside = found[:, None] & known[None, :]
                    at = (h * width + w)[:, None] * stride_p + channel[None, :] * stride_c
                    z = load_z(y, scale, shift, at, inside, channel, known, SUM)
                    split += tl.where(inside, tl.maximum(z, 0.0), 0.0)
            split = split / 9.0  # zeros around the map count
        a = attention_weight(logits, c, known, r, channels, RADIX, CARDINALITY)
        total += split * a[None, :]
    at = q[:, None] * out_p + c[None, :] * out_c
    tl.store(v + image * out_n + at, total.to(v.dtype.element_ty), mask=there[:, None] & known[None, :])
