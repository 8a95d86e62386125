"""Opens pictures of which regions are wanted: TIFF files by regions, others decoded once.

    picture = open_regions("big.jpg", spill=True)
    picture.size, picture.read((0, 0, 640, 640))
    picture.close()

A decoded picture takes 4 bytes a pixel of memory; with `spill` a large one moves to a temporary file, of 3 bytes a
pixel. They may have 500 megapixels, where they are wanted in tiles.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from resnest.runtime.bands import RGB, Bands, read_picture, to_picture
from resnest.runtime.inputs import ImageInput
from resnest.runtime.regions import Decoded, Regions, tiff_pages
from resnest.runtime.tiff import SUFFIXES
from resnest.runtime.tiles import Box

MAX_PIXELS = 500_000_000  # of a picture that is decoded whole: 2 gigabytes in Pillow
MAX_BYTES = 2**30
BAND = 64  # rows that are written at once
LARGE = 2**25  # pixels; a picture of more is not kept in memory, 128 MiB


class Spilled(Regions):
    """A picture whose pixels are in a temporary file. Raises OSError: there is no room for them."""

    def __init__(self, image: Image.Image, name: str) -> None:
        self.name, self.size = name, image.size
        self.file = tempfile.TemporaryFile(prefix="resnest-")  # noqa: SIM115
        try:
            for top in range(0, image.height, BAND):
                self.file.write(image.crop((0, top, image.width, min(top + BAND, image.height))).tobytes())
            self.file.flush()
        except OSError:
            self.file.close()
            raise

    def read(self, box: Box) -> Image.Image:
        left, top, right, bottom = box
        pixels = np.memmap(self.file, np.uint8, "r", shape=(*self.size[::-1], 3))  # anew: its memory is given up
        return Image.fromarray(np.ascontiguousarray(pixels[top:bottom, left:right]))

    def close(self) -> None:
        self.file.close()


def open_regions(
    source: ImageInput | Regions, name: str = "image", bands: Bands = RGB, *, spill: bool = False
) -> Regions:
    """A picture of any kind, as a model takes it.

    Args:
        spill: a large picture of a file moves to a temporary file, once it is decoded.

    Raises:
        BadImage, WrongInput: as `to_picture`; of a file with more than 500 megapixels.
    """
    if isinstance(source, Regions):
        return source
    if isinstance(source, str | os.PathLike):
        source = Path(source)
        if source.suffix.lower() in SUFFIXES and len(pages := tiff_pages(source, bands)) == 1:
            return pages[0]
    elif isinstance(source, bytes | bytearray | memoryview):
        source = bytes(source)
    else:
        return Decoded(to_picture(source, bands, name), name)  # of a file object what it may have without tiles
    image = read_picture(source, bands, name=name, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS)
    if spill and bands.plain and image.width * image.height > LARGE:
        try:
            return Spilled(image, name)
        except OSError:  # no room on the disk: it stays in memory
            pass
    return Decoded(image, name)
