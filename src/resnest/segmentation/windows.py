"""Training crops of large TIFF pictures, of which only the crop's window is read.

pair = open_pair(samples, 0)                  # None: the file is to be decoded whole
pair.size, pair.read((0, 0, 640, 640))        # the picture's window, and the classes of its mask
pair.close()

The pixels of a crop are those of the whole picture. A mask is read by windows, too, if it is TIFF and every value
stands for itself; else it is decoded whole, which is less than the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.data.samples import Samples
from resnest.data.stores import path_of
from resnest.runtime.decode import BadImage
from resnest.runtime.regions import TiffPage, tiff_pages
from resnest.runtime.tiff import BLACK_IS_ZERO, PALETTE, SUFFIXES, WHITE_IS_ZERO
from resnest.runtime.tiles import Box
from resnest.segmentation.data import PixelSamples
from resnest.segmentation.mask_values import StoredMask

LARGE = 2**21  # pixels: smaller pictures are decoded whole in the time that opening a file by regions takes

Labels = NDArray[np.uint8]


def is_large(size: tuple[int, int]) -> bool:
    """Whether crops of a picture of this width and height are made from their windows."""
    return size[0] * size[1] >= LARGE


@dataclass(frozen=True)
class WindowedPair:
    """A picture and its mask, of one size, of which windows are read."""

    picture: TiffPage
    mask: Callable[[Box], Labels]
    close: Callable[[], None]

    @property
    def size(self) -> tuple[int, int]:
        return self.picture.size

    def read(self, box: Box) -> tuple[Image.Image, Labels]:
        """Raises BadImage."""
        return self.picture.read(box), self.mask(box)


def open_pair(samples: Samples, index: int) -> WindowedPair | None:
    """A large picture with its mask, if the picture can be read by regions. Raises BadImage."""
    if not isinstance(samples, PixelSamples):
        return None
    path = path_of(samples.store, samples.keys[index])
    pages = tiff_pages(path, samples.bands) if path and path.suffix.lower() in SUFFIXES else []
    if not pages:
        return None
    picture = pages[0]
    picture.name = samples.keys[index]
    with ExitStack() as files:
        files.callback(picture.close)
        if len(pages) > 1 or not is_large(picture.size):
            return None
        if page := _mask_page(samples, index):
            files.callback(page.close)
            size, labels = page.size, _by_windows(samples, index, page)
        else:
            whole = samples.mask(index)
            size, labels = whole.shape[::-1], lambda box: whole[box[1] : box[3], box[0] : box[2]]
        if size != picture.size:  # said where the picture is decoded
            return None
        return WindowedPair(picture, labels, files.pop_all().close)


def _mask_page(samples: PixelSamples, index: int) -> TiffPage | None:
    path = path_of(samples.masks, samples.mask_keys[index])
    if not path or path.suffix.lower() not in SUFFIXES or not samples.meaning.by_value:
        return None
    pages = tiff_pages(path, readable=_has_numbers)
    return pages[0] if pages else None


def _by_windows(samples: PixelSamples, index: int, page: TiffPage) -> Callable[[Box], Labels]:
    def labels(box: Box) -> Labels:
        try:
            values = page.values(box)[..., 0]
            stored = StoredMask(values if values.dtype == np.uint8 else values.astype(np.int64), False)
            return samples.meaning.classes_of(stored)
        except BadImage as error:
            raise samples.bad_mask(index, error) from None

    return labels


def _has_numbers(page: Any) -> bool:
    """Whether a page has one integer a pixel, such as a class number."""
    kind = page.dtype
    integers = kind is not None and kind.kind in "ui" and page.bitspersample == kind.itemsize * 8
    return bool(integers and page.samplesperpixel == 1 and page.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO, PALETTE))
