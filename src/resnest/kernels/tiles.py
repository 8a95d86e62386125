"""Tiles: a program of a kernel takes (BLOCK_P pixels, BLOCK_C channels) at a time.

One kernel serves both layouts: pixels of a map have one stride, channels another, and the tile is long in the direction
in which memory runs. Nothing here looks at the GPU or measures: how sums are split depends on shapes alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

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
