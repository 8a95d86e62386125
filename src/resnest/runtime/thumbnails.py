"""Large pictures made small, to be drawn into: of JPEG and TIFF files less than the whole is in memory.

    small, size = thumbnail(Path("scan.tif"), 4096, bands=(4, 3, 2))       # RGB, and the full width and height

A JPEG file is decoded at a half, a quarter or an eighth, as its blocks allow. TIFF files are read by regions, with
whatever bands and values they have; the stretch of `shown` is that of the small picture.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from resnest.runtime.bands import AS_IS, is_bands_file, read_picture
from resnest.runtime.decode import decode_reduced, read_content
from resnest.runtime.inputs import ImageInput
from resnest.runtime.opening import MAX_BYTES, MAX_PIXELS
from resnest.runtime.raster import Raster
from resnest.runtime.regions import Decoded, Regions, tiff_pages
from resnest.runtime.shown import chosen, drawable, shown
from resnest.runtime.tiff import SUFFIXES

BAND = 64  # rows of the small picture that are made at once

Size = tuple[int, int]  # width, height


def thumbnail(source: ImageInput | Regions, most: int, bands: Sequence[int] = ()) -> tuple[Image.Image, Size]:
    """The picture in RGB with a longer side of at most `most` pixels, by averages of blocks, and its full size.

    Args:
        bands: as of `shown`.

    Raises:
        BadImage: it cannot be used, or a file has more than 500 megapixels.
        WrongInput, ResnestError: as `drawable`.
    """
    if isinstance(source, str | os.PathLike):
        source = Path(source)
        pages = _pages(source, bands) if source.suffix.lower() in SUFFIXES else []
        if len(pages) == 1:
            try:
                return small(pages[0], most, bands), pages[0].size
            finally:
                pages[0].close()
    if isinstance(source, Path | bytes):
        return _of_file(source, most, bands)
    picture = source if isinstance(source, Regions) else Decoded(drawable(source, bands), "")
    return small(picture, most, bands), picture.size


def small(picture: Regions, most: int, bands: Sequence[int] = ()) -> Image.Image:
    """As `thumbnail`, of rows that are read one after the other."""
    (width, height), factor = picture.size, _factor(most, *picture.size)
    pieces = []
    for top in range(0, height, BAND * factor):
        rows = picture.read((0, top, width, min(top + BAND * factor, height)))
        pieces.append((chosen(rows, bands) if isinstance(rows, Raster) else rows).reduce(factor))
    values = np.concatenate([np.asarray(piece) for piece in pieces])  # (H, W, C)
    return shown(Raster.of(values, pieces[0].kind) if isinstance(pieces[0], Raster) else Image.fromarray(values))


def _factor(most: int, width: int, height: int) -> int:
    return max(1, -(-max(width, height) // most))


def _pages(path: Path, bands: Sequence[int]) -> Sequence[Regions]:
    """The page of a file that is read by regions: as a photograph, else, or for its bands, with all its values."""
    return (not bands and tiff_pages(path)) or tiff_pages(path, AS_IS)


def _of_file(source: Path | bytes, most: int, bands: Sequence[int]) -> tuple[Image.Image, Size]:
    name = str(source) if isinstance(source, Path) else "image"
    content = read_content(source, name, MAX_BYTES)
    if not is_bands_file(content):
        return decode_reduced(content, partial(_factor, most), name=name, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS)
    picture = read_picture(content, AS_IS, name=name, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS)
    return small(Decoded(picture, name), most, bands), picture.size
