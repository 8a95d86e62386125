"""Regions of large pictures: `size`, and `read(box)`; of TIFF files without decoding the rest.

for page in tiff_pages(Path("big.tif")): ...     # pages in tiles or strips, which are read one by one
page.size, page.read((0, 0, 640, 640))
Decoded(image, "big.jpg")                 # whole in memory: JPEG, PNG and the others have no regions
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.runtime.bands import RGB, Bands, to_bands
from resnest.runtime.decode import BadImage
from resnest.runtime.raster import Raster
from resnest.runtime.tiff import (
    BLACK_IS_ZERO,
    JPEG,
    OLD_JPEG,
    WHITE_IS_ZERO,
    black_is_zero,
    colours_of,
    is_copy,
    orientation_of,
)
from resnest.runtime.tiff import RGB as COLOURS
from resnest.runtime.tiles import Box

CACHED = 2**26  # bytes of decoded segments of a TIFF file that are kept for the next region
KEPT = (np.uint8, np.uint16, np.float32)  # values that a Raster has whole and whose black and white are known


class Regions(ABC):
    """A picture of which regions are read, upright, as a model takes them."""

    name: str
    size: tuple[int, int]  # width, height

    @abstractmethod
    def read(self, box: Box) -> Image.Image:
        """The pixels of a box within the picture. Raises BadImage."""

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
    """A page of a TIFF file that tifffile has opened, as a model with these bands takes it."""

    def __init__(self, file: Any, page: Any, name: str, number: int = 0, bands: Bands = RGB) -> None:
        self.file, self.page, self.name, self.number, self.bands = file, page, name, number, bands
        self.size = (int(page.imagewidth), int(page.imagelength))
        self.lock = threading.Lock()
        self.cache: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self.cached = 0  # bytes

    def read(self, box: Box) -> Image.Image:
        pixels = black_is_zero(self.page, self.values(box))
        if self.bands.plain:
            colours = self.page.photometric == COLOURS
            return Image.fromarray(np.ascontiguousarray(pixels[..., :3] if colours else pixels[..., 0])).convert("RGB")
        raster = Raster.of(pixels, pixels.dtype.name)
        raster.colours = colours_of(self.page, pixels.shape[2])
        return to_bands(raster, self.bands, self.name)

    def values(self, box: Box) -> NDArray[Any]:
        """The values of a box as they are stored, (h, w, C). Raises BadImage."""
        left, top, right, bottom = box
        try:
            with self.lock:
                if self.page.is_memmappable and len(self.page.dataoffsets) == 1:
                    return self._mapped()[top:bottom, left:right].astype(self._kind)
                return self._joined(left, top, right, bottom)
        except (OSError, ValueError, IndexError, TypeError, KeyError, RuntimeError) as error:
            raise BadImage(self.name, f"damaged ({str(error) or type(error).__name__})") from None

    def close(self) -> None:
        self.file.close()

    @property
    def _kind(self) -> np.dtype[Any]:
        """In the machine's byte order."""
        kind: np.dtype[Any] = np.dtype(self.page.dtype).newbyteorder("=")
        return kind

    def _mapped(self) -> NDArray[Any]:
        """(H, W, C) of a file that is one uncompressed strip; opened anew each time, so that its memory is given up."""
        shape = (self.size[1], self.size[0], self.page.samplesperpixel)
        stored = self._kind.newbyteorder(self.file.byteorder)
        return np.memmap(self.file.filehandle.path, stored, "r", self.page.dataoffsets[0], shape)

    def _joined(self, left: int, top: int, right: int, bottom: int) -> NDArray[Any]:
        high, wide = self.page.chunks[:2]
        across = -(-self.size[0] // wide)
        pixels = np.zeros((bottom - top, right - left, self.page.samplesperpixel), self._kind)
        for row in range(top // high, -(-bottom // high)):
            for column in range(left // wide, -(-right // wide)):
                part = self._segment(row * across + column)
                y, x = row * high, column * wide
                inner = part[max(top - y, 0) : bottom - y, max(left - x, 0) : right - x]
                y, x = max(y - top, 0), max(x - left, 0)
                pixels[y : y + inner.shape[0], x : x + inner.shape[1]] = inner
        return pixels

    def _segment(self, number: int) -> NDArray[Any]:
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
        black = np.zeros((high, wide, self.page.samplesperpixel), self._kind)
        part = black if decoded is None else decoded[0]  # none: a hole of a sparse file
        self.cache[number] = part
        self.cached += part.nbytes
        while self.cached > CACHED and len(self.cache) > 1:
            self.cached -= self.cache.popitem(last=False)[1].nbytes
        return part


def tiff_pages(path: Path, bands: Bands = RGB, readable: Callable[[Any], bool] | None = None) -> list[TiffPage]:
    """The pages of a TIFF file, if all can be read by regions; else none. A smaller copy of another is passed over.

    They can be if tifffile is installed and knows the compression (uncompressed, deflate; others, such as LZW and JPEG,
    need imagecodecs, too), samples are interleaved, and the picture is upright; for RGB, pixels have 8 bits in grey or
    RGB, and for other bands there is one page alone. The first page's `close` closes the file.

    Args:
        readable: another condition on a page than that of a picture in such bands.
    """
    try:
        import tifffile
    except ModuleNotFoundError:
        return []
    try:
        file: Any = tifffile.TiffFile(path)
    except (OSError, ValueError):  # TiffFileError is a ValueError
        return []
    try:
        pages = [
            (number, page) for number, page in enumerate(file.pages) if number == 0 or not is_copy(page.subfiletype)
        ]
        holds = readable or (_is_photograph if bands.plain else _is_of_values)
        alone = bands.plain and not readable  # else pages are bands
        if all(_by_regions(page) and holds(page) for _, page in pages) and (alone or len(pages) == 1):
            single = len(file.pages) == 1
            return [TiffPage(file, page, str(path) if single else f"{path}[{n}]", n, bands) for n, page in pages]
    except (OSError, ValueError, IndexError, TypeError, KeyError, AttributeError, RuntimeError):
        pass  # the usual reader says what is wrong
    file.close()
    return []


def _by_regions(page: Any) -> bool:
    """Whether the segments of a page are parts of an upright picture."""
    import tifffile

    known = page.compression in tifffile.TIFF.DECOMPRESSORS and page.compression not in (OLD_JPEG, JPEG)
    return bool(known and page.planarconfig == 1 and page.imagedepth == 1 and orientation_of(page) == 1)


def _is_photograph(page: Any) -> bool:
    """Whether pixels have 8 bits in grey, of either direction, or RGB."""
    grey, colours = page.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO), page.photometric == COLOURS
    samples = page.samplesperpixel - len(page.extrasamples)
    return bool(
        page.dtype == np.uint8 and page.bitspersample == 8 and ((colours and samples == 3) or (grey and samples == 1))
    )


def _is_of_values(page: Any) -> bool:
    """Whether pixels are numbers that are read without loss."""
    whole = page.dtype is not None and page.bitspersample == page.dtype.itemsize * 8
    return bool(whole and page.dtype in KEPT and page.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO, COLOURS))
