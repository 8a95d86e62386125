"""What TIFF files say of their pages: the format's numbers (TIFF 6.0), and the few questions that readers ask.

content.startswith(STARTS)                        # a TIFF file, or a BigTIFF one
orientation_of(page), colours_of(page, 4)         # of a page of tifffile: 1 to 8 as in EXIF, "RGBA"
with refusing_tiff("scan.tif"): ...               # Pillow's errors become BadImage
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.runtime.decode import BadImage, refusing

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # with + those of more than 4 gigabytes
SUFFIXES = (".tif", ".tiff")
FORMATS = ("TIFF",)  # as Pillow calls it
SUBFILE, WIDTH, HEIGHT, BITS, PHOTOMETRIC, ORIENTATION = 254, 256, 257, 258, 262, 274  # tags
EXTRA_SAMPLES, SAMPLE_FORMAT = 338, 339
SMALLER, MASK = 1, 4  # bits of SUBFILE: a page that is another one made smaller, or its mask
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, LAB = 0, 1, 2, 3, 8  # PHOTOMETRIC
UNSIGNED = (1, 4)  # SAMPLE_FORMAT: unsigned, undefined
ALPHA = (1, 2)  # EXTRA_SAMPLES: associated, unassociated
OLD_JPEG, JPEG = 6, 7  # compression, whose colours may be YCbCr


def is_copy(subfile: object) -> bool:
    """Whether a page with this SUBFILE is a smaller copy or a mask of another one, as in pyramids."""
    return isinstance(subfile, int) and bool(subfile & (SMALLER | MASK))


def orientation_of(page: Any) -> int:
    """1 to 8 as in EXIF; 1 is upright."""
    found = page.tags.get(ORIENTATION)
    return int(found.value) if found is not None else 1


def colours_of(page: Any, count: int) -> str:
    """The meaning of this number of bands, where the file tells: RGB, RGBA, LA; else ""."""
    extra = tuple(map(int, page.extrasamples))
    alpha = len(extra) == 1 and extra[0] in ALPHA
    known = {(RGB, 3): "RGB", (RGB, 4): "RGBA" if alpha else "", (BLACK_IS_ZERO, 2): "LA" if alpha else ""}
    return known.get((int(page.photometric), count), "") if page.samplesperpixel == count else ""


def black_is_zero(page: Any, pixels: NDArray[Any]) -> NDArray[Any]:
    """The values of a page, turned if its white is 0."""
    if int(page.photometric) != WHITE_IS_ZERO or pixels.dtype.kind != "u":
        return pixels
    return np.iinfo(pixels.dtype).max - pixels


@contextmanager
def refusing_tiff(name: str) -> Iterator[None]:
    """Turns Pillow's errors within into BadImage; of damaged tags it has others than of other formats."""
    try:
        with refusing(name, FORMATS * 2):
            yield
    except (KeyError, AttributeError, ZeroDivisionError, AssertionError, RuntimeError) as error:
        raise BadImage(name, f"damaged ({type(error).__name__})") from None
