"""Files of bands: TIFF of any number of samples or pages, and NumPy's arrays, without loss.

    image, orientation = read_tiff(content, "scene.tif")    # Raster of all bands, or a Pillow image of 8-bit pixels
    pixels = read_array(content, 4, "scene.npy")             # (H, W, 4)

Pillow reads the TIFF files that it keeps whole: one page of grey, RGB or a palette, in 8 bits, or grey in 16 bits or
float. All others need tifffile (`pip install 'resnest[tiff]'`): pages of one size are bands, in the order of the file,
and so are samples, interleaved or in planes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.errors import one_line
from resnest.runtime.decode import MAX_PIXELS, BadImage
from resnest.runtime.decode import SUFFIXES as PHOTOGRAPHS
from resnest.runtime.raster import Raster
from resnest.runtime.tiff import (
    BITS,
    EXTRA_SAMPLES,
    FORMATS,
    HEIGHT,
    LAB,
    ORIENTATION,
    PALETTE,
    PHOTOMETRIC,
    SAMPLE_FORMAT,
    UNSIGNED,
    WHITE_IS_ZERO,
    WIDTH,
    black_is_zero,
    colours_of,
    orientation_of,
    refusing_tiff,
)
from resnest.runtime.tiff import SUFFIXES as TIFF_SUFFIXES

NUMPY = b"\x93NUMPY"
SUFFIXES = (*TIFF_SUFFIXES, ".npy")
PICTURES = (*PHOTOGRAPHS, *SUFFIXES)  # what folders of data sets are looked through for
MOST_PAGES = 1024
MOST_PIECES = 2**18
FLOAT = 4  # bytes
# tifffile's readers that look for further files of a series: pages of this file alone are bands
ALONE: dict[str, Any] = {"is_ome": False, "is_mmstack": False, "is_ndtiff": False}
BANDS_AT_ONCE = 4  # that a picture of the most pixels may have; one of fewer pixels more: as floats 1.4 GB
WHOLE = {"1": 1, "L": 1, "P": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "YCbCr": 3, "I;16": 1, "F": 1}  # samples
TURNS = {  # EXIF orientation: as ImageOps.exif_transpose
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The picture upright."""
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


# --- NumPy's arrays ---


def read_array(content: bytes, channels: int, name: str, most: int = MAX_PIXELS) -> NDArray[Any]:
    """The array of a .npy file, (H, W, C). Raises BadImage: damaged, pickled, or another shape."""
    return channels_last(stored_array(content, name, most), channels, name)


def stored_array(content: bytes, name: str, most: int = MAX_PIXELS) -> NDArray[Any]:
    """The array of a .npy file, of whatever shape. Raises BadImage: damaged, or pickled."""
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except Exception as error:  # the header is Python's source: its parser has many ways to fail
        raise BadImage(name, f"damaged ({one_line(error)})") from None
    if dtype.kind not in "buif":
        raise BadImage(name, f"has values of type {dtype}: expected integers or floats")
    start = file.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(content) - start:
        raise BadImage(name, f"damaged ({len(content) - start} bytes for values of shape {shape} and type {dtype})")
    _check_count(shape, dtype.itemsize, name, most)
    return np.frombuffer(content, dtype, offset=start).reshape(shape, order="F" if fortran else "C")


def channels_last(array: NDArray[Any], channels: int, name: str) -> NDArray[Any]:
    """An array of a picture as (H, W, C), native and contiguous: (H, W) is one band.

    Raises:
        BadImage: neither the first nor the last side is the number of channels (or 1), or both are.
    """
    if array.ndim == 2:
        return _native(array[..., None])
    sides = (array.shape[0], array.shape[2]) if array.ndim == 3 else (0, 0)
    first, last = (side == channels for side in sides)
    if array.ndim == 3 and not channels:  # as it is: the shorter side
        first, last = sides[0] < sides[1], sides[0] >= sides[1]
    if first and last:
        what = f"may be (H, W, {channels}) or ({channels}, H, W)"
        raise BadImage(name, f"has the shape {array.shape}, which {what}: save it with another size")
    if not (first or last):
        first, last = sides[0] == 1, sides[1] == 1  # grey
    if first == last:
        wanted = f"(H, W), (H, W, {channels}) or ({channels}, H, W)"
        raise BadImage(name, f"has the shape {array.shape}, and in_chans={channels}: expected {wanted}")
    return _native(np.moveaxis(array, 0, -1) if first else array)


def _native(array: NDArray[Any]) -> NDArray[Any]:
    """In the machine's byte order; False and True as black and white."""
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def _check_count(shape: tuple[int, ...], size: int, name: str, most: int) -> None:
    """Raises BadImage for no values, and for more than fit beside `most` pixels; `size` is that of a value in bytes."""
    count = math.prod(shape)
    if not count:
        raise BadImage(name, f"has no pixels {shape}")
    if count * max(size, FLOAT) > most * BANDS_AT_ONCE * FLOAT:
        raise BadImage(name, f"too many values ({count / 1e6:.0f} million, at most {most * BANDS_AT_ONCE / 1e6:.0f})")


# --- TIFF ---


def read_tiff(content: bytes, name: str, most: int = MAX_PIXELS, *, numbers: bool = False) -> tuple[Image.Image, int]:
    """The picture of a file with all its bands, as it is stored, and its orientation, 1 to 8 as in EXIF.

    Args:
        numbers: values are no brightness: where white is 0 they stay what they are.

    Raises:
        BadImage: damaged or too large; pages of several sizes; a compression that no installed package reads.
    """
    image = _with_pillow(content, name, most, numbers)
    return (image, 1) if image is not None else _with_tifffile(content, name, most, numbers)


def tiff_size(content: bytes, name: str) -> tuple[int, int]:
    """Width and height of the first page as it is stored, from its header. Raises BadImage."""
    try:
        with refusing_tiff(name):
            tags = Image.open(io.BytesIO(content), formats=FORMATS).tag_v2  # type: ignore[attr-defined]
            return int(tags[WIDTH]), int(tags[HEIGHT])  # Pillow's size is that of the upright picture
    except BadImage as error:  # of a kind that Pillow does not know
        with contextlib.suppress(Exception):
            import tifffile

            with tifffile.TiffFile(io.BytesIO(content), **ALONE) as file:
                page: Any = file.pages[0]
                return int(page.imagewidth), int(page.imagelength)
        raise error


def _with_pillow(content: bytes, name: str, most: int, numbers: bool) -> Image.Image | None:
    """The picture, if Pillow keeps all that is in the file."""
    try:
        with refusing_tiff(name):
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            whole = getattr(image, "n_frames", 1) == 1 and _is_kept(image) and not (numbers and _is_changed(image))
    except BadImage as error:
        if "pixels" in error.reason:
            raise
        return None  # of a kind that Pillow does not know, or damaged, which tifffile says
    if not whole:
        return None
    _check_size(image.width, image.height, name, most)
    with refusing_tiff(name):
        image.load()
    return image


def _is_kept(image: Image.Image) -> bool:
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits, kinds = tags.get(BITS, (1,)), tags.get(SAMPLE_FORMAT, (1,))
    known = WHOLE.get(image.mode) == len(bits) and tags.get(ORIENTATION, 1) == 1
    if image.mode == "F":
        return known and kinds[0] == 3
    inverted = image.mode == "I;16" and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO  # Pillow inverts 8 bits only
    alpha = image.mode not in ("LA", "RGBA") or set(tags.get(EXTRA_SAMPLES, ())) <= {2}
    deep = max(bits) > (16 if image.mode == "I;16" else 8)
    return bool(known and not inverted and alpha and not deep and set(kinds) <= set(UNSIGNED))


def _is_changed(image: Image.Image) -> bool:
    """Whether Pillow turns or spreads the values of greys."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    spread = image.mode == "L" and max(tags.get(BITS, (1,))) < 8
    return spread or (image.mode in ("1", "L") and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO)


def _with_tifffile(content: bytes, name: str, most: int, numbers: bool) -> tuple[Raster, int]:
    try:
        import tifffile
    except ImportError:
        raise BadImage(name, "is a TIFF file that needs tifffile: `pip install 'resnest[tiff]'`") from None
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong with a file is said below
    try:
        with tifffile.TiffFile(io.BytesIO(content), **ALONE) as file:
            if len(file.pages) > MOST_PAGES:
                raise BadImage(name, f"has {len(file.pages)} pages, at most {MOST_PAGES} are bands")
            return _bands_of(file, name, most, numbers)
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # tifffile has no word for what damaged files lead to
        if "imagecodecs" in str(error):
            advice = "`pip install imagecodecs` reads it, or save it uncompressed or with deflate"
            raise BadImage(name, f"is compressed in a way that tifffile alone does not read: {advice}") from None
        raise BadImage(name, f"damaged TIFF ({one_line(error)})") from None


def _bands_of(file: Any, name: str, most: int, numbers: bool) -> tuple[Raster, int]:
    """All bands of an opened file: (H, W, pages x samples)."""
    own = [series for series in file.series if not (series.keyframe.is_reduced or series.keyframe.is_mask)]
    if not own:
        raise BadImage(name, "damaged TIFF (it has no page)")
    if len(own) != 1:
        shapes = " and ".join(str(tuple(series.shape)) for series in own[:2])
        raise BadImage(name, f"has pages of several sizes or types ({shapes}): bands are of one")
    [series] = own
    page, axes, shape = series.keyframe, series.axes, tuple(series.shape)
    if "Y" not in axes or "X" not in axes:
        raise BadImage(name, f"has the shape {shape} ({axes}): expected pictures with height and width")
    height, width = shape[axes.index("Y")], shape[axes.index("X")]
    _check_size(width, height, name, most)
    bits = page.bitspersample
    if series.dtype is None or series.dtype.kind not in "buif" or (bits < 8 and bits != 1):
        raise BadImage(
            name, f"has {bits}-bit values of a kind that is not read: save it with 8 or 16 bits, or as float"
        )
    _check_count(shape, series.dtype.itemsize, name, most)
    if int(page.photometric) in (PALETTE, LAB):
        raise BadImage(name, "has a palette in several pages, or LAB colours: save it as RGB")
    pieces = math.prod(page.chunked)  # strips or tiles, each with an offset and a length in the file
    if pieces > MOST_PIECES or pieces * 8 > page.parent.filehandle.size:
        raise BadImage(name, f"damaged TIFF (it claims {pieces} strips or tiles)")
    planes = [axis for axis, letter in enumerate(axes) if letter not in "YXS"]
    samples = [axes.index("S")] if "S" in axes else []
    pixels = series.asarray(maxworkers=1).transpose([axes.index("Y"), axes.index("X"), *planes, *samples])
    pixels = pixels.reshape(height, width, -1)
    if numbers:
        pixels = pixels.astype(np.uint8) if pixels.dtype == bool else pixels
    pixels = _native(pixels) if numbers else black_is_zero(page, _native(pixels))
    raster = Raster.of(pixels, pixels.dtype.name)
    raster.colours = colours_of(page, pixels.shape[2])
    return raster, orientation_of(page)


def _check_size(width: int, height: int, name: str, most: int) -> None:
    if width * height > most:
        raise BadImage(name, f"too many pixels ({width} x {height}, at most {most / 1e6:.0f} megapixels)")
