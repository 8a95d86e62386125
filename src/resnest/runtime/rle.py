"""COCO's compressed RLE of masks: run lengths in column order, zeros first, packed into text.

    rle = encode(mask)                  # (H, W) bool -> {"size": [H, W], "counts": "..."}, ready for json.dumps
    decode(rle), area(rle), box(rle)    # (H, W) bool; pixels; x, y, width, height
    crop(rle)                           # left, top, (h, w) bool: the mask within its box
    paint(canvas, rle, 7)               # 7 in the pixels of the mask of a canvas (W, H)

The text is that of the COCO API (maskApi.c, rleToString): the difference to the length two before, in groups of five
bits, the lowest first; 32 says that more follow, and 48 makes it printable. Equal to pycocotools (tests/test_rle.py).
"""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from resnest.errors import ResnestError

BITS, MORE, SIGN, FIRST = 5, 32, 16, 48
LONG_RUN = 200  # pixels: setting runs one by one is quicker than setting all pixels by a mask
LONGEST = 13  # groups of 5 bits that a 64-bit number takes


class RLE(TypedDict):
    """One mask."""

    size: list[int]  # height, width
    counts: str | list[int]  # the packed text; COCO's crowds have the lengths themselves


def encode(mask: NDArray[np.bool_], *, left: int = 0, top: int = 0, size: tuple[int, int] | None = None) -> RLE:
    """A mask, or part of one: `left`, `top` and the `size` (height, width) of the full mask place it."""
    height, width = size or mask.shape
    columns = np.zeros((mask.shape[1], mask.shape[0] + 2), np.int8)  # (w, h + 2): a zero before and after each
    columns[:, 1:-1] = mask.T
    steps = np.diff(columns)  # (w, h + 1)
    column, row = np.nonzero(steps)  # in turns the start of a run and the place after its end
    edges = (left + column) * height + top + row
    if mask.shape[0] == height:  # a run that goes on in the next column is one
        joined = np.flatnonzero(edges[1:] == edges[:-1])
        edges = np.delete(edges, np.concatenate([joined, joined + 1]))
    counts = np.diff(edges, prepend=0, append=height * width)
    if len(edges) and edges[-1] == height * width:  # no zeros at the end
        counts = counts[:-1]
    return {"size": [int(height), int(width)], "counts": pack(counts)}


def decode(rle: RLE) -> NDArray[np.bool_]:
    """The mask, (H, W). Raises ResnestError if its runs do not fill its size."""
    height, width = rle["size"]
    counts = lengths(rle)
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape(width, height).T


def crop(rle: RLE) -> tuple[int, int, NDArray[np.bool_]]:
    """Left, top, and the mask within its box, (h, w); only the columns of the box are unpacked."""
    left, top, wide, high = box(rle)
    height = rle["size"][0]
    counts = lengths(rle)
    ends = np.clip(np.cumsum(counts), left * height, (left + wide) * height)
    columns = np.repeat(np.arange(len(counts)) % 2 == 1, np.diff(ends, prepend=left * height))
    return left, top, columns.reshape(wide, height)[:, top : top + high].T


def paint(canvas: NDArray[Any], rle: RLE, value: int) -> None:
    """Set the pixels of a mask in a canvas (W, H), which is the picture's columns."""
    ends = np.cumsum(lengths(rle))
    starts, ends = ends[:-1:2], ends[1::2]
    if len(starts) * LONG_RUN < (ends - starts).sum():
        flat = canvas.reshape(-1)
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            flat[start:end] = value
    else:
        left, top, mask = crop(rle)
        np.copyto(canvas[left : left + mask.shape[1], top : top + mask.shape[0]], value, where=mask.T)


def area(rle: RLE) -> int:
    """Pixels in the mask."""
    return int(lengths(rle)[1::2].sum())


def box(rle: RLE) -> tuple[int, int, int, int]:
    """x, y, width, height around the mask; all 0 for an empty one."""
    height = rle["size"][0]
    ends = np.cumsum(lengths(rle))
    starts, ends = ends[:-1:2], ends[1::2]  # of the runs of ones, which may have no pixel
    starts, last = starts[ends > starts], ends[ends > starts] - 1
    if not len(starts):
        return 0, 0, 0, 0
    left, right = int(starts[0]) // height, int(last[-1]) // height
    if (starts // height != last // height).any():  # a run over the end of a column has its top and its bottom
        return left, 0, right - left + 1, height
    top, bottom = int((starts % height).min()), int((last % height).max())
    return left, top, right - left + 1, bottom - top + 1


def lengths(rle: RLE) -> NDArray[np.int64]:
    """Pixels of each run, zeros and ones alternately. Raises ResnestError if they do not fill the mask's size."""
    height, width = rle["size"]
    packed = rle["counts"]
    counts = unpack(packed) if isinstance(packed, str) else np.asarray(packed, np.int64)
    if (counts < 0).any() or counts.sum() != height * width:
        raise ResnestError(f"a mask of {height} x {width} pixels (height, width) has runs of other sizes")
    return counts


def pack(counts: NDArray[np.int64]) -> str:
    """The text for these lengths."""
    rest = counts.astype(np.int64)
    rest[3:] -= counts[1:-2]
    groups = np.zeros((len(rest), LONGEST), np.uint8)
    used = np.zeros(groups.shape, bool)
    going = np.ones(len(rest), bool)
    for column in range(LONGEST):
        used[:, column] = going
        low = rest & (MORE - 1)
        rest >>= BITS
        further = rest != np.where(low & SIGN, -1, 0)
        groups[:, column] = low + MORE * further + FIRST
        going = going & further
        if not going.any():
            break
    return groups[used].tobytes().decode("ascii")


def unpack(text: str) -> NDArray[np.int64]:
    """The lengths in a text. Raises ResnestError if it is invalid or truncated."""
    groups = np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int64) - FIRST
    if not len(groups):
        return np.zeros(0, np.int64)
    last = groups & MORE == 0
    ends = np.flatnonzero(last)
    if groups.min() < 0 or groups.max() >= 2 * MORE or not last[-1]:
        raise ResnestError(f"{text[:40]!r} is not a packed mask, or was cut off")
    starts = np.concatenate([[0], ends[:-1] + 1])
    sizes = ends - starts + 1
    if sizes.max() > LONGEST:
        raise ResnestError(f"{text[:40]!r} is not a packed mask: it has a run of more than 64 bits")
    shifts = BITS * (np.arange(len(groups)) - np.repeat(starts, sizes))
    counts = np.add.reduceat((groups & (MORE - 1)) << shifts, starts)
    counts -= np.where(groups[ends] & SIGN, 1, 0) << np.minimum(BITS * sizes, 62)
    for first in (1, 2):
        counts[first::2] = np.cumsum(counts[first::2])
    return counts
