"""The backward pass: one pass over y and dV for sums, one that writes the gradient of y (block.py says why two)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from resnest.kernels.forward import LAUNCH, Map, as_map, parts_of, sum_type, tile_of
from resnest.kernels.reference import layout


def gradient_sums(
    d_v: Tensor, y: Tensor, mean: Tensor, rstd: Tensor, scale: Tensor, shift: Tensor, radix: int, pool: int
) -> Tensor:
    """`reference.gradient_sums`: (4, N, R*C)."""
    x, grad = as_map(y), as_map(d_v)
    images, channels = len(y), y.shape[1] // radix
    tile = tile_of(x, channels, heavy=True)
    blocks = radix * triton.cdiv(channels, tile.channels)
    parts = parts_of(x, tile, images * blocks)
    out = torch.empty((4, images, parts, radix * channels), dtype=mean.dtype, device=y.device)
    _sums_kernel[images * parts, blocks](
        x.tensor, grad.tensor, mean, rstd, scale, shift, out, *_sizes(x, grad, channels), parts, images,
        *x.strides, *grad.strides,
        RADIX=radix, POOL=pool, BLOCK_P=tile.pixels, BLOCK_C=tile.channels, SUM=sum_type(y.dtype), **LAUNCH,
    )  # fmt: skip
    return out.sum(2)


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
    """`reference.input_gradient`: (N, R*C, H, W), in the layout of y."""
    d_y = torch.empty(y.shape, dtype=y.dtype, device=y.device, memory_format=layout(y))
    x, grad, out = as_map(y), as_map(d_v), as_map(d_y)
    channels = y.shape[1] // radix
    tile = tile_of(out, channels, heavy=pool > 0)
    tiles = triton.cdiv(x.pixels, tile.pixels)
    small = (each.contiguous() for each in (a, d_pooled, corrections))
    _gradient_kernel[len(y) * tiles, radix * triton.cdiv(channels, tile.channels)](
        x.tensor, grad.tensor, mean, rstd, scale, shift, *small, d_y, *_sizes(x, grad, channels),
        tiles, *x.strides, *grad.strides, *out.strides,
        RADIX=radix, POOL=pool, BLOCK_P=tile.pixels, BLOCK_C=tile.channels, SUM=sum_type(y.dtype), **LAUNCH,
    )  # fmt: skip
    return d_y


def _sizes(x: Map, grad: Map, channels: int) -> tuple[int, int, int, int, int]:
    """C, W, pixels; H', W' of V."""
    return channels, x.tensor.shape[3], x.pixels, grad.tensor.shape[2], grad.tensor.shape[3]


@triton.jit
def load_spread(
    d_v, p, c, inside, width, out_height, out_width, out_c, out_p,
    POOL: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """dV at pixels p of y: each window of the average pool with the pixel gives a ninth."""
    if POOL == 0:
        return tl.load(d_v + p[:, None] * out_p + c[None, :] * out_c, mask=inside, other=0.0).to(SUM)
    spread = tl.zeros([BLOCK_P, BLOCK_C], SUM)
    for dh in tl.static_range(3):
        for dw in tl.static_range(3):
            h = p // width + (1 - dh)  # POOL times the row of a window that has p in its row dh
            w = p % width + (1 - dw)
            valid = (h >= 0) & (h % POOL == 0) & (h // POOL < out_height)
            valid = valid & (w >= 0) & (w % POOL == 0) & (w // POOL < out_width)
            at = ((h // POOL) * out_width + w // POOL)[:, None] * out_p + c[None, :] * out_c
            spread += tl.load(d_v + at, mask=inside & valid[:, None], other=0.0).to(SUM)
    return spread / 9.0


@triton.jit
def _sums_kernel(
    y, d_v, mean, rstd, scale, shift, out, channels, width, pixels, out_height, out_width, parts, images,
    stride_n, stride_c, stride_p, out_n, out_c, out_p,
    RADIX: tl.constexpr, POOL: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """Sums over one part of an image's pixels, for BLOCK_C channels of one split; splits run in parallel."""
    image, part = (tl.program_id(0) // parts).to(tl.int64), tl.program_id(0) % parts
    r = tl.program_id(1) % RADIX
    c = (tl.program_id(1) // RADIX) * BLOCK_C + tl.arange(0, BLOCK_C)
    known, channel = c < channels, r * channels + c
    y += image * stride_n
    d_v += image * out_n
    centre = tl.load(mean + channel, mask=known, other=0.0)[None, :]
    width_of = tl.load(rstd + channel, mask=known, other=0.0)[None, :]
    factor = tl.load(scale + channel, mask=known, other=0.0)[None, :]
    term = tl.load(shift + channel, mask=known, other=0.0)[None, :]
    active_dv = tl.zeros([BLOCK_P, BLOCK_C], SUM)
    active_dv_xhat = tl.zeros([BLOCK_P, BLOCK_C], SUM)
    active = tl.zeros([BLOCK_P, BLOCK_C], SUM)
    active_xhat = tl.zeros([BLOCK_P, BLOCK_C], SUM)
    for start in range(part * BLOCK_P, pixels, parts * BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        inside = (p < pixels)[:, None] & known[None, :]
        value = tl.load(y + p[:, None] * stride_p + channel[None, :] * stride_c, mask=inside, other=0.0).to(SUM)
        on = tl.where(inside & (value * factor + term > 0.0), 1.0, 0.0).to(SUM)
        xhat = (value - centre) * width_of
        spread = load_spread(d_v, p, c, inside, width, out_height, out_width, out_c, out_p, POOL, BLOCK_P, BLOCK_C, SUM)
        active_dv += spread * on
        active_dv_xhat += spread * on * xhat
        active += on
        active_xhat += on * xhat
    at = tl.program_id(0).to(tl.int64) * RADIX * channels + channel
    step = images.to(tl.int64) * parts * RADIX * channels
    tl.store(out + at, tl.sum(active_dv, 0), mask=known)
    tl.store(out + step + at, tl.sum(active_dv_xhat, 0), mask=known)
    tl.store(out + 2 * step + at, tl.sum(active, 0), mask=known)
    tl.store(out + 3 * step + at, tl.sum(active_xhat, 0), mask=known)


@triton.jit
def _gradient_kernel(
    y, d_v, mean, rstd, scale, shift, a, d_pooled, corrections, d_y,
    channels, width, pixels, out_height, out_width, tiles,
    stride_n, stride_c, stride_p, out_n, out_c, out_p, d_n, d_c, d_p,
    RADIX: tl.constexpr, POOL: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """A tile of the gradient of y, for channels of one split."""
    image = (tl.program_id(0) // tiles).to(tl.int64)
    p = (tl.program_id(0) % tiles) * BLOCK_P + tl.arange(0, BLOCK_P)
    r = tl.program_id(1) % RADIX
    c = (tl.program_id(1) // RADIX) * BLOCK_C + tl.arange(0, BLOCK_C)
    known, channel = c < channels, r * channels + c
    inside = (p < pixels)[:, None] & known[None, :]
    value = tl.load(y + image * stride_n + p[:, None] * stride_p + channel[None, :] * stride_c, mask=inside, other=0.0)
    value = value.to(SUM)
    factor = tl.load(scale + channel, mask=known, other=0.0)[None, :]
    on = value * factor + tl.load(shift + channel, mask=known, other=0.0)[None, :] > 0.0
    centre = tl.load(mean + channel, mask=known, other=0.0)[None, :]
    xhat = (value - centre) * tl.load(rstd + channel, mask=known, other=0.0)[None, :]
    spread = load_spread(
        d_v + image * out_n, p, c, inside, width, out_height, out_width, out_c, out_p, POOL, BLOCK_P, BLOCK_C, SUM
    )
    weight = tl.load(a + image * RADIX * channels + channel, mask=known, other=0.0)[None, :]
    d_z = spread * weight + tl.load(d_pooled + image * channels + c, mask=known, other=0.0)[None, :]
    c0 = tl.load(corrections + channel, mask=known, other=0.0)[None, :]
    c1 = tl.load(corrections + RADIX * channels + channel, mask=known, other=0.0)[None, :]
    result = factor * (tl.where(on, d_z, 0.0) - c0 - xhat * c1)
    at = image * d_n + p[:, None] * d_p + channel[None, :] * d_c
    tl.store(d_y + at, result.to(d_y.dtype.element_ty), mask=inside)
