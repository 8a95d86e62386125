"""Forward kernels, over all pixels: moments (bn0 in training), pooled splits, the weighted sum, the 3x3 convolution.

    mean, variance = moments(y)                                     # (R*C,) each
    sums = pool_splits(y, scale, shift, radix)                      # (N, T, C): s of section 3.1, times the pixels
    v = weigh_splits(y, scale, shift, logits, radix, cardinality, pool)
    u, sums = split_convolution(x, weight, bias, radix, groups, stride, dilation)       # in evaluation

Each takes norm and ReLU as it loads y, and reads y once. The convolution is radix-grouped, in channels_last, an
implicit matrix product: norm folded, bias and ReLU in the epilogue, and the sums over pixels that the attention
wants, so that U is written once and read once more. A program computes BLOCK_P pixels of an image times BLOCK_O
channels of a group; the product runs over nine taps times the channels of the group. A tile never spans two images,
which keeps the sums apart; the price is an image's last tile, which is not full.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from resnest.kernels import reference
from resnest.kernels.backend import interpreted
from resnest.kernels.block import convolved_side, empty_v
from resnest.kernels.reference import accumulator

# --- Tiles: a program of a kernel takes (BLOCK_P pixels, BLOCK_C channels) at a time ---
# One kernel serves both layouts: pixels of a map have one stride, channels another, and the tile is long in the
# direction in which memory runs. Nothing here looks at the GPU or measures: how sums are split depends on shapes alone.

TILE = 2048  # values a program holds at once: 16 for each of 128 threads
HEAVY = 2  # by which the tile is smaller in kernels that hold more: several sums, the nine taps of a pool
PROGRAMS = 1024  # that keep a large GPU busy: about eight for each of 132 multiprocessors (H100)
MIN_DOT = 16  # sides of a matrix product of Triton (tl.dot)
LAUNCH = {"enable_fp_fusion": True}  # multiply and add in one rounding; Triton 3.9 warns where nobody says so


class Map(NamedTuple):
    """A tensor of feature maps and its strides."""

    tensor: Tensor  # (N, C, H, W)
    stride_n: int
    stride_c: int
    stride_p: int  # from pixel to pixel, along a row and on to the next

    @property
    def pixels(self) -> int:
        return self.tensor.shape[2] * self.tensor.shape[3]

    @property
    def channels_last(self) -> bool:
        return self.stride_c == 1 and self.stride_p != 1

    @property
    def strides(self) -> tuple[int, int, int]:
        return self.stride_n, self.stride_c, self.stride_p


class Tile(NamedTuple):
    """Sizes of a tile, powers of two."""

    pixels: int  # BLOCK_P
    channels: int  # BLOCK_C


def as_map(x: Tensor) -> Map:
    """x with one stride for all its pixels; copied where its rows are apart."""
    height, width = x.shape[2:]
    stride_n, stride_c, stride_h, stride_w = x.stride()
    if width == 1:
        stride_w = stride_h
    elif height > 1 and stride_h != width * stride_w:
        return as_map(x.contiguous())
    return Map(x, stride_n, stride_c, stride_w)


def tile_of(x: Map, channels: int, *, heavy: bool = False) -> Tile:
    """The tile for `channels` neighbouring channels of x: long in the contiguous direction, no longer than the map."""
    values = TILE // (HEAVY if heavy else 1) // (2 if x.tensor.dtype == torch.float64 else 1)
    if x.channels_last:
        block_c = min(triton.next_power_of_2(channels), 64)
        return Tile(min(triton.next_power_of_2(x.pixels), values // block_c), block_c)
    block_p = min(triton.next_power_of_2(x.pixels), 256)
    return Tile(block_p, min(triton.next_power_of_2(channels), values // block_p))


def parts_of(x: Map, tile: Tile, programs: int) -> int:
    """Number of parts in which an image's pixels are summed, given `programs` programs without splitting."""
    return int(max(1, min(triton.cdiv(x.pixels, tile.pixels), triton.cdiv(PROGRAMS, programs))))


def precision(weight: Tensor) -> str:
    """Precision of float32 in matrix units: torch's setting, or ten bits if the weights have no more anyway."""
    short = weight.dtype in (torch.float16, torch.bfloat16) or torch.backends.cuda.matmul.allow_tf32
    return "tf32" if short else "ieee"


def sum_type(dtype: torch.dtype) -> tl.dtype:
    return tl.float64 if dtype == torch.float64 else tl.float32


@triton.jit
def load_z(y, scale, shift, at, inside, channel, known, SUM: tl.constexpr):
    """y * scale + shift on a tile, in the type of sums; 0 outside.

    y: of the image. at, inside: (P, C), offsets and whether they exist; channel, known: (C,), those of scale and shift.
    """
    z = tl.load(y + at, mask=inside, other=0.0).to(SUM)
    if scale is not None:
        z = z * tl.load(scale + channel, mask=known, other=0.0)[None, :]
    if shift is not None:
        z = z + tl.load(shift + channel, mask=known, other=0.0)[None, :]
    return z


def moments(y: Tensor) -> tuple[Tensor, Tensor]:
    """`reference.moments` in one pass over y: (N, C, H, W) -> mean, variance, both (C,)."""
    x = as_map(y)
    images, channels = y.shape[:2]
    tile = tile_of(x, channels)
    blocks, tiles = triton.cdiv(channels, tile.channels), triton.cdiv(x.pixels, tile.pixels)
    parts = min(images * tiles, triton.cdiv(PROGRAMS, blocks), 256)
    sums = accumulator(y.dtype)
    partial = torch.empty((3, parts, channels), dtype=sums, device=y.device)  # count, mean, sum of squared differences
    _moments_kernel[parts, blocks](
        x.tensor, partial, images, channels, x.pixels, parts, *x.strides,
        BLOCK_P=tile.pixels, BLOCK_C=tile.channels, SUM=sum_type(y.dtype), **LAUNCH,
    )  # fmt: skip
    mean, variance = partial.new_empty(channels), partial.new_empty(channels)
    block_c = min(triton.next_power_of_2(channels), 16)
    _joined_kernel[triton.cdiv(channels, block_c),](
        partial, mean, variance, channels, parts, PARTS=triton.next_power_of_2(parts), BLOCK_C=block_c, **LAUNCH
    )
    return mean, variance


@triton.jit
def _moments_kernel(
    y, partial, images, channels, pixels, parts, stride_n, stride_c, stride_p,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """The moments of one part of all images' tiles, for BLOCK_C channels.

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
        fraction = more / (count + more)
        squares += tl.sum(apart * apart, 0) + difference * difference * (count * fraction)
        mean += difference * fraction
        count += more
    at = part * channels + c
    tl.store(partial + at, count + mean * 0, mask=known)
    tl.store(partial + parts * channels + at, mean, mask=known)
    tl.store(partial + 2 * parts * channels + at, squares, mask=known)


@triton.jit
def _joined_kernel(partial, mean, variance, channels, parts, PARTS: tl.constexpr, BLOCK_C: tl.constexpr):
    """The moments of BLOCK_C channels, joined from their parts."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    part = tl.arange(0, PARTS)
    inside = (part < parts)[:, None] & (c < channels)[None, :]
    at = part[:, None] * channels + c[None, :]
    counts = tl.load(partial + at, mask=inside, other=0.0)
    means = tl.load(partial + parts * channels + at, mask=inside, other=0.0)
    squares = tl.load(partial + 2 * parts * channels + at, mask=inside, other=0.0)
    count = tl.maximum(tl.sum(counts, 0), 1.0)  # channels that are not there have none
    joined = tl.sum(counts * means, 0) / count
    apart = means - joined[None, :]
    total = tl.sum(squares + counts * apart * apart, 0)
    tl.store(mean + c, joined, mask=c < channels)
    tl.store(variance + c, total / count, mask=c < channels)


def pool_splits(y: Tensor, scale: Tensor | None, shift: Tensor | None, radix: int) -> Tensor:
    """`reference.pool_splits`: (N, R*C, H, W) -> sums (N, T, C), in T parts of the pixels."""
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
    """Sums over one part of an image's pixels, for BLOCK_C channels of all splits."""
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


def weigh_splits(
    y: Tensor, scale: Tensor | None, shift: Tensor | None, logits: Tensor, radix: int, cardinality: int, pool: int
) -> Tensor:
    """`reference.weigh_splits`: (N, R*C, H, W) and G(s), (N, R*C) -> V, (N, C, H', W'), in the layout of y."""
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
                    valid = there & (h >= 0) & (h < height) & (w >= 0) & (w < width)
                    inside = valid[:, None] & known[None, :]
                    at = (h * width + w)[:, None] * stride_p + channel[None, :] * stride_c
                    z = load_z(y, scale, shift, at, inside, channel, known, SUM)
                    split += tl.where(inside, tl.maximum(z, 0.0), 0.0)
            split = split / 9.0  # zeros around the map count
        a = attention_weight(logits, c, known, r, channels, RADIX, CARDINALITY)
        total += split * a[None, :]
    at = q[:, None] * out_p + c[None, :] * out_c
    tl.store(v + image * out_n + at, total.to(v.dtype.element_ty), mask=there[:, None] & known[None, :])


def split_convolution(
    x: Tensor, weight: Tensor, bias: Tensor, radix: int, groups: int, stride: int, dilation: int
) -> tuple[Tensor, Tensor]:
    """`reference.split_convolution`: U, (N, R*C, H', W') in channels_last, and sums (N, T, C)."""
    if x.dtype == torch.float64:  # not for matrix units; for tests
        u, _ = reference.split_convolution(x, weight, bias, radix, groups, stride, dilation)
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
    block_p = int(max(MIN_DOT, min(triton.next_power_of_2(pixels), 128 if pixels > 256 and is_short else 64)))
    block_o = int(max(MIN_DOT, min(triton.next_power_of_2(outputs), 128 if is_short else 64)))
    block_k = int(max(MIN_DOT, min(triton.next_power_of_2(inputs), 64 if is_short else 32)))
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
        if INTERPRETED:  # whose product takes the bits of a bfloat16 for an integer (triton 3.9)
            value, factor = value.to(tl.float32), factor.to(tl.float32)
        total = tl.dot(value, factor, total, input_precision=PRECISION)
    channel = group * outputs + o
    total += tl.load(bias + channel, mask=known, other=0.0).to(tl.float32)[None, :]
    total = tl.where(there[:, None], tl.maximum(total, 0.0), 0.0)
    channels = groups * outputs
    at = (image * pixels + q[:, None]) * channels + channel[None, :]
    tl.store(u + at, total.to(u.dtype.element_ty), mask=there[:, None] & known[None, :])
    tl.store(sums + tl.program_id(0).to(tl.int64) * channels + channel, tl.sum(total, 0), mask=known)
