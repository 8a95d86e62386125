"""The masks of a training picture's objects, kept as what lies around each, and drawn a few at a time.

    masks = ObjectMasks.pack([Part(pixels, top=4, left=7), ...], size=(800, 1344))
    masks.drawn(0, 8)                              # (8, 800, 1344): the first eight
    ObjectMasks.of(torch.rand(3, 64, 64) > 0.5)    # of masks that are there already

375 nuclei at 800 x 1688 pixels are 0.5 GB as whole masks, and less than 1 MB so. All pixels are in one tensor: worker
processes hand over tensors by open files, of which there are not many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Part(NamedTuple):
    """The pixels of a mask within a window; those outside are not the object's."""

    pixels: NDArray[np.bool_]  # (h, w)
    top: int = 0
    left: int = 0

    def trimmed(self) -> Part:
        """The smallest window with all its pixels; an empty one of a mask without any."""
        rows, columns = (np.flatnonzero(self.pixels.any(axis)) for axis in (1, 0))
        if not len(rows):
            return Part(self.pixels[:0, :0], self.top, self.left)
        top, left = int(rows[0]), int(columns[0])
        pixels = self.pixels[top : rows[-1] + 1, left : columns[-1] + 1]
        return Part(pixels, self.top + top, self.left + left)


class ObjectMasks(NamedTuple):
    """M masks of one size."""

    pixels: Tensor  # (P,) bool: of all windows, one behind the other, each row by row
    windows: Tensor  # (M, 4) int64: top, left, bottom, right
    size: tuple[int, int]  # height, width

    @classmethod
    def pack(cls, parts: Sequence[Part], size: tuple[int, int]) -> ObjectMasks:
        flat = [np.zeros(0, bool), *(part.pixels.ravel() for part in parts)]
        windows = [(p.top, p.left, p.top + p.pixels.shape[0], p.left + p.pixels.shape[1]) for p in parts]
        return cls(torch.from_numpy(np.concatenate(flat)), torch.tensor(windows).long().reshape(-1, 4), size)

    @classmethod
    def of(cls, masks: Tensor) -> ObjectMasks:
        """Of whole masks, (M, H, W) bool."""
        height, width = masks.shape[1:]
        return cls.pack([Part(mask).trimmed() for mask in masks.cpu().numpy()], (height, width))

    @property
    def boxes(self) -> Tensor:
        """The windows as x1, y1, x2, y2 at pixel borders: (M, 4) float32."""
        return self.windows[:, [1, 0, 3, 2]].float()

    def drawn(self, first: int = 0, last: int | None = None, *, dtype: torch.dtype = torch.bool) -> Tensor:
        """Whole masks, (last - first, H, W), of 0 and 1: the objects from `first` to before `last`; else all."""
        areas = (self.windows[:, 2:] - self.windows[:, :2]).prod(1)
        starts = (areas.cumsum(0) - areas).tolist()[first:last]
        windows = self.windows[first:last].tolist()
        whole = self.pixels.new_zeros(len(windows), *self.size, dtype=dtype)
        for mask, start, (top, left, bottom, right) in zip(whole, starts, windows, strict=True):
            high, wide = bottom - top, right - left
            mask[top:bottom, left:right] = self.pixels[start : start + high * wide].reshape(high, wide)
        return whole

    def one_by_one(self) -> Iterator[Tensor]:
        """Each whole mask, (H, W) bool."""
        for row in range(len(self.windows)):
            yield self.drawn(row, row + 1)[0]
