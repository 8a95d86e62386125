"""Regions of large pictures: `size`, and `read(box)`; of TIFF files without decoding the rest.

for page in tiff_pages(Path("big.tif")): ...     # pages in tiles or strips, which are read one by one
page.size, page.read((0, 0, 640, 640))
Decoded(image, "big.jpg")                 # whole in memory: JPEG, PNG and the others have no regions
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.runtime.decode import BadImage
from resnest.runtime.tiles import Box

CACHED = 2**26  # bytes of decoded segments of a TIFF file that are kept for the next region
BAND = 64  # rows of a reduced picture that are made at once


class Regions(ABC):
    """A picture of which regions are read, upright, in 8-bit RGB."""

    name: str
    size: tuple[int, int]  # width, height

    @abstractmethod
    def read(self, box: Box) -> Image.Image:
        """The pixels of a box within the picture. Raises BadImage."""

    def reduced(self, most: int) -> Image.Image:
        """The picture with a longer side of at most `most` pixels, by averages of blocks; never enlarged."""
        width, height = self.size
        factor = max(1, -(-max(width, height) // most))
        small = Image.new("RGB", (-(-width // factor), -(-height // factor)))
        for top in range(0, height, BAND * factor):
            band = self.read((0, top, width, min(top + BAND * factor, height)))
            small.paste(band.reduce(factor), (0, top // factor))
        return small

    def close(self) -> None:  # noqa: B027
        """Close files."""


class Decoded(Regions):
    """A picture in memory."""

    def __init__(self, image: Image.Image, name: str) -> None:
        self.image, self.name, self.size = image, name, image.size

    def read(self, box: Box) -> Image.Image:
        return self.image.crop(box)


# --- TIFF: its tiles or strips ("segments"), by tifffile ---


class TiffPage(Regions):
    """A page of a TIFF file that tifffile has opened."""

    def __init__(self, file: Any, page: Any, name: str, number: int = 0) -> None:
        self.file, self.page, self.name, self.number = file, page, name, number
        self.size = (int(page.imagewidth), int(page.imagelength))
        self.lock = threading.Lock()
        self.cache: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self.cached = 0  # bytes

    def read(self, box: Box) -> Image.Image:
        left, top, right, bottom = box
        try:
            with self.lock:
                if self.page.is_memmappable and len(self.page.dataoffsets) == 1:
                    pixels = self._mapped()[top:bottom, left:right].copy()
                else:
                    pixels = self._joined(left, top, right, bottom)
        except (OSError, ValueError, IndexError, TypeError, KeyError, RuntimeError) as error:
            raise BadImage(self.name, f"damaged ({str(error) or type(error).__name__})") from None
        if self.page.photometric == 0:  # white is zero
            pixels = 255 - pixels
        colours = self.page.photometric == 2
        return Image.fromarray(np.ascontiguousarray(pixels[..., :3] if colours else pixels[..., 0])).convert("RGB")

    def close(self) -> None:
        self.file.close()

    def _mapped(self) -> NDArray[np.uint8]:
        """(H, W, C) of a file that is one uncompressed strip; opened anew each time, so that its memory is given up."""
        shape = (self.size[1], self.size[0], self.page.samplesperpixel)
        return np.memmap(self.file.filehandle.path, np.uint8, "r", self.page.dataoffsets[0], shape)

    def _joined(self, left: int, top: int, right: int, bottom: int) -> NDArray[np.uint8]:
        high, wide = self.page.chunks[:2]
        across = -(-self.size[0] // wide)
        pixels = np.zeros((bottom - top, right - left, self.page.samplesperpixel), np.uint8)
        for row in range(top // high, -(-bottom // high)):
            for column in range(left // wide, -(-right // wide)):
                part = self._segment(row * across + column)
                y, x = row * high, column * wide
                inner = part[max(top - y, 0) : bottom - y, max(left - x, 0) : right - x]
                y, x = max(y - top, 0), max(x - left, 0)
                pixels[y : y + inner.shape[0], x : x + inner.shape[1]] = inner
        return pixels

    def _segment(self, number: int) -> NDArray[np.uint8]:
        """A decoded tile or strip, (h, w, C)."""
        if number in self.cache:
            self.cache.move_to_end(number)
            return self.cache[number]
        handle = self.file.filehandle
        handle.seek(self.page.dataoffsets[number])
        content = handle.read(self.page.databytecounts[number])
        if len(content) < self.page.databytecounts[number]:
            raise ValueError("image file is truncated")
        decoded = self.page.decode(content, number)[0]
        high, wide = self.page.chunks[:2]
        black = np.zeros((high, wide, self.page.samplesperpixel), np.uint8)
        part = black if decoded is None else decoded[0]  # none: a hole of a sparse file
        self.cache[number] = part
        self.cached += part.nbytes
        while self.cached > CACHED and len(self.cache) > 1:
            self.cached -= self.cache.popitem(last=False)[1].nbytes
        return part


def tiff_pages(path: Path) -> list[TiffPage]:
    """The pages of a TIFF file, if all can be read by regions; else none. A smaller copy of another is passed over.

    They can be if tifffile is installed and knows the compression (uncompressed, deflate; others, such as LZW and JPEG,
    need imagecodecs, too), pixels have 8 bits in grey or RGB, and the picture is upright. The first page's `close`
    closes the file.
    """
    try:
        import tifffile
    except ModuleNotFoundError:
        return []
    try:
        file = tifffile.TiffFile(path)
    except (OSError, ValueError):  # TiffFileError is a ValueError
        return []
    try:
        pages = [(number, page) for number, page in enumerate(file.pages) if number == 0 or not _is_copy(page)]
        if all(_readable(page) for _, page in pages):
            single = len(file.pages) == 1
            return [TiffPage(file, page, str(path) if single else f"{path}[{n}]", n) for n, page in pages]
    except (OSError, ValueError, IndexError, TypeError, KeyError, AttributeError, RuntimeError):
        pass  # the usual reader says what is wrong
    file.close()
    return []


def _is_copy(page: Any) -> bool:
    return bool(page.subfiletype & 5)  # reduced, or a mask (TIFF 6.0, NewSubfileType)


def _readable(page: Any) -> bool:
    import tifffile

    if page.compression not in tifffile.TIFF.DECOMPRESSORS or page.compression in (6, 7):  # JPEG: colours may be YCbCr
        return False
    orientation = page.tags.get(274)
    return bool(
        page.dtype == np.uint8
        and page.bitspersample == 8
        and page.photometric in (0, 1, 2)  # grey, of either direction, and RGB
        and page.samplesperpixel - len(page.extrasamples) == (3 if page.photometric == 2 else 1)
        and page.planarconfig == 1
        and page.imagedepth == 1
        and (orientation is None or orientation.value == 1)
    )
