"""Opens pictures of which regions are wanted: TIFF files by regions, others whole in memory.

    picture = open_regions("big.jpg")
    picture.size, picture.read((0, 0, 640, 640))

Pictures in memory take 4 bytes a pixel; they may have 500 megapixels, where they are wanted in tiles.
"""

from __future__ import annotations

import os
from pathlib import Path

from resnest.runtime.bands import RGB, Bands, read_picture, to_picture
from resnest.runtime.inputs import ImageInput
from resnest.runtime.regions import Decoded, Regions, tiff_pages
from resnest.runtime.tiff import SUFFIXES

MAX_PIXELS = 500_000_000  # of a picture that is decoded whole: 2 gigabytes in Pillow
MAX_BYTES = 2**30


def open_regions(source: ImageInput | Regions, name: str = "image", bands: Bands = RGB) -> Regions:
    """A picture of any kind, as a model takes it.

    Raises:
        BadImage, WrongInput: as `to_picture`; of a file with more than 500 megapixels.
    """
    if isinstance(source, Regions):
        return source
    if isinstance(source, str | os.PathLike):
        source = Path(source)
        if source.suffix.lower() in SUFFIXES and len(pages := tiff_pages(source, bands)) == 1:
            return pages[0]
        return Decoded(read_picture(source, bands, name=name, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS), name)
    if isinstance(source, bytes | bytearray | memoryview):
        image = read_picture(bytes(source), bands, name=name, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS)
        return Decoded(image, name)
    return Decoded(to_picture(source, bands, name), name)  # of a file object what it may have without tiles
