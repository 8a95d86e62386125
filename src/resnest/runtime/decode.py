"""Safe decoding of bytes to an RGB image, for training, evaluation and prediction.

    image = decode_image(Path("rose.jpg"))        # PIL.Image, mode RGB, upright
    image, box = decode_for_crop(content, draw, at_least=224)      # for training: no finer than the crop needs

The order matters (promise P11): byte cap, format by content, header, pixel cap, decode, orientation, RGB. A file
is refused by its header before a pixel of it is decoded: a PNG of 190 KB can claim 200 megapixels.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from resnest.errors import ResnestError, parameter

# Common and well fuzzed; recognised by their first bytes, never by the file's name. No EPS, SVG or TIFF.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
EXACT = ("PNG", "BMP", "GIF")  # lossless formats for masks: JPEG and WEBP change values
# What folder scans pick up, upper case too; data/listing.py looks into files of other suffixes
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".jpe", ".jfif")
PNG = b"\x89PNG\r\n\x1a\n"
DEPTH, KIND = 24, 25  # bytes of a PNG with the bits of a sample and the kind of pixels (PNG specification, 11.2.1)
MAX_BYTES = 100 * 2**20
MAX_PIXELS = 89_478_485  # Pillow's own limit for a quarter of a gigabyte of RGB
SCALES = (8, 4, 2)  # a JPEG decodes faster at 1/2, 1/4 and 1/8: its blocks have 8 x 8 pixels

Box = tuple[float, float, float, float]  # left, top, right, bottom
Exif = Literal["auto", "upright", "stored"]


class BadImage(ResnestError):
    """An unusable image file; `reason` says why without naming the file."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type[BadImage], tuple[str, str]]:
        return type(self), (self.name, self.reason)  # so that it crosses from a worker process


class WrongSize(BadImage):
    """An image whose size differs from its annotations."""


def decode_image(
    source: bytes | Path,
    *,
    name: str = "",
    formats: tuple[str, ...] = FORMATS,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    annotated: tuple[int, int] | None = None,
    exif: Exif = "auto",
) -> Image.Image:
    """Decode bytes or a file into an upright RGB image.

    CMYK, palette and 16-bit images are converted (16 bits to the upper 8), alpha is dropped, EXIF orientation is
    applied.

    Args:
        annotated: width and height that the image's annotations refer to.
        exif: which way up it was annotated: as browsers and annotation tools show it ("upright"), as its pixels are
            "stored", or "auto": stored if only that size fits. Other images are made upright.

    Raises:
        BadImage: empty, too large, of another format, truncated, damaged, or animated; WrongSize: of another size than
            annotated.
    """
    name = name or (str(source) if isinstance(source, Path) else "image")
    content = read_content(source, name, max_bytes)
    image = decode_upright(
        content,
        name=name,
        formats=formats,
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        annotated=annotated,
        exif=exif,
    )
    with refusing(name, formats):
        return to_rgb(image)


def decode_upright(
    content: bytes,
    *,
    name: str,
    formats: tuple[str, ...] = FORMATS,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    annotated: tuple[int, int] | None = None,
    exif: Exif = "auto",
) -> Image.Image:
    """As `decode_image`, in the mode of the file: no colour is converted. Raises BadImage."""
    _check_bytes(content, name, max_bytes)
    with refusing(name, formats):
        image = _open(content, name, formats, max_pixels)
        image.load()
        orientation = exif_orientation(image)
        if annotated and not check_annotated(image.size, orientation, annotated, exif, name):
            orientation = 1
        return turn_upright(image, orientation)


def decode_for_crop(
    content: bytes, choose: Callable[[int, int], Box], *, at_least: int | None, name: str = "image"
) -> tuple[Image.Image, Box]:
    """Decode at the resolution that a crop needs; for training, as the pixels differ slightly from `decode_image`.

    Args:
        content: The bytes of a file.
        choose: Gets the width and height of the upright image, before it is decoded, and returns the crop.
        at_least: Pixels that each side of the crop must keep if the image is decoded at a fraction of its size, which
            only JPEGs allow; none: decode in full.
        name: What errors call the file.

    Returns:
        The upright RGB image, and the crop in its coordinates.

    Raises:
        BadImage: for the same files as `decode_image`.
    """
    _check_bytes(content, name, MAX_BYTES)
    with refusing(name, FORMATS):
        image = _open(content, name, FORMATS, MAX_PIXELS)
        if image.format not in ("JPEG", "MPO"):
            image.load()  # the EXIF data of a PNG may lie behind its pixels
        orientation = exif_orientation(image)
    width, height = image.size if orientation < 5 else image.size[::-1]  # from 5 on, lying on a side
    left, top, right, bottom = choose(width, height)
    with refusing(name, FORMATS):
        scale = _reduce(image, min(right - left, bottom - top) / at_least) if at_least else 1.0
        image.load()
        upright = to_rgb(turn_upright(image, orientation))
    # Sizes are rounded up, by less than a pixel at the right and bottom as stored: perhaps left and top when upright.
    x = upright.width - width / scale if orientation in (2, 3, 6, 7) else 0.0
    y = upright.height - height / scale if orientation in (3, 4, 7, 8) else 0.0
    return upright, (left / scale + x, top / scale + y, right / scale + x, bottom / scale + y)


def decode_reduced(
    content: bytes, factor: Callable[[int, int], int], *, name: str, **limits: int
) -> tuple[Image.Image, tuple[int, int]]:
    """Decode into an upright RGB image of 1 / `factor` the size, by averages of blocks, and its full size; of a JPEG
    most blocks are not decoded in full.

    Args:
        factor: of a full width and height as they are stored; sides are rounded up.
        limits: `max_bytes`, `max_pixels`, as of `decode_image`.

    Raises:
        BadImage: for the same files as `decode_image`.
    """
    _check_bytes(content, name, limits.get("max_bytes", MAX_BYTES))
    with refusing(name, FORMATS):
        image = _open(content, name, FORMATS, limits.get("max_pixels", MAX_PIXELS))
        stored = image.size
        by = factor(*stored)
        _reduce(image, by)
        image.load()
        orientation = exif_orientation(image)
        upright, size = to_rgb(turn_upright(image, orientation)), turned_size(stored, orientation)
    small = -(-size[0] // by), -(-size[1] // by)
    return (upright if small == upright.size else upright.resize(small, Image.Resampling.BOX)), size


def decode_stored(content: bytes, *, name: str = "image", pixels: bool = True) -> Image.Image:
    """Decode an image of class numbers in its stored mode: neither converted nor rotated.

    Args:
        pixels: without them only the header is read, for the size.

    Raises:
        BadImage: as `decode_image`; of a format that does not keep numbers, or with more bits than are decoded.
    """
    _check_bytes(content, name, MAX_BYTES)
    with refusing(name, EXACT):
        image = _open(content, name, FORMATS, MAX_PIXELS)
        if image.format not in EXACT:
            raise BadImage(name, f"is a {image.format} file, which is lossy: save it as PNG")
        bits, grey = png_samples(content)
        if bits > 8 and not grey:  # Pillow drops the lower ones
            raise BadImage(name, f"has {bits} bits in each channel, of which 8 would be read: save it with 8 bits")
        if pixels:
            image.load()
    return image


def png_samples(content: bytes) -> tuple[int, bool]:
    """Bits of a sample and whether pixels are one grey sample each; (0, False) for another format than PNG."""
    if not content.startswith(PNG) or len(content) <= KIND:
        return 0, False
    return content[DEPTH], content[KIND] == 0


class _Quiet:
    """Ignores Pillow's warnings while any thread decodes.

    `warnings.catch_warnings` is for one thread: of two that overlap, the second to leave would put back the filters
    that it found, which are the first one's, for good.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.within = 0

    def __enter__(self) -> None:
        with self.lock:
            if not self.within:
                warnings.filterwarnings("ignore", module=r"PIL\.")
                self.filter = warnings.filters[0]
            self.within += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.within -= 1
            if not self.within:
                with contextlib.suppress(ValueError):  # other code restored earlier filters
                    cast(list[Any], warnings.filters).remove(self.filter)


_QUIET = _Quiet()


@contextlib.contextmanager
def refusing(name: str, formats: tuple[str, ...]) -> Iterator[None]:
    """Turns Pillow's errors within into BadImage."""
    try:
        with _QUIET:  # Pillow warns of what is checked or converted here
            yield
    except UnidentifiedImageError:
        raise BadImage(name, f"not a {', '.join(formats[:-1])} or {formats[-1]} image") from None
    except Image.DecompressionBombError as error:  # Pillow's own words are of an attack
        found = re.search(r"\d{6,}", str(error))
        size = f"{int(found[0]) / 1e6:.0f} megapixels" if found else "more than Pillow opens"
        raise BadImage(name, f"too many pixels ({size}, at most {MAX_PIXELS / 1e6:.0f})") from None
    except (OSError, ValueError, SyntaxError, struct.error, EOFError, IndexError, TypeError, OverflowError) as error:
        if isinstance(error, BadImage):
            raise
        raise BadImage(name, f"damaged ({str(error) or type(error).__name__})") from None


def read_capped(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a file; of a larger one at most `max_bytes` and one.

    The size is asked for first: Python sets aside, in fresh memory, as much as a read allows.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size or max_bytes  # pipes have none
        return file.read(min(size, max_bytes) + 1)


def read_content(source: bytes | Path, name: str, max_bytes: int) -> bytes:
    """The bytes of a file. Raises BadImage: it cannot be read, is empty or too large."""
    if isinstance(source, Path):
        try:
            source = read_capped(source, max_bytes)
        except OSError as error:
            raise BadImage(name, f"cannot be read ({error.strerror or error})") from None
    _check_bytes(source, name, max_bytes)
    return source


def _check_bytes(content: bytes, name: str, max_bytes: int) -> None:
    if not content:
        raise BadImage(name, "empty file")
    if len(content) > max_bytes:
        raise BadImage(name, f"larger than {max_bytes / 2**20:g} MiB")


def _open(content: bytes, name: str, formats: tuple[str, ...], max_pixels: int) -> Image.Image:
    """Open an image and check its header; no pixel is decoded yet."""
    opened = Image.open if max_pixels <= MAX_PIXELS else _open_large
    image = opened(io.BytesIO(content), formats=formats)
    _check_header(image, name, max_pixels)
    return image


def _open_large(file: io.BytesIO, formats: tuple[str, ...]) -> Image.Image:
    """As Image.open, without Pillow's own limit, which is the whole process's: `_check_header` has ours."""
    Image.init()
    start = file.getvalue()[:16]
    for factory, accept in (Image.OPEN[name] for name in formats):
        if accept is None or accept(start) is True:
            return cast(Image.Image, factory(file, ""))
    raise UnidentifiedImageError


def _check_header(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise BadImage(name, f"too many pixels ({width} x {height}, at most {max_pixels / 1e6:.0f} megapixels)")
    # MPO is how phones store a JPEG with its depth map or second view; the first picture is the photo.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise BadImage(name, f"animated ({getattr(image, 'n_frames', 1)} frames)")


def exif_orientation(image: Image.Image) -> int:
    """1 to 8 as in EXIF; 1 is upright."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, ValueError, SyntaxError, struct.error, TypeError, KeyError, ZeroDivisionError):
        return 1  # EXIF that cannot be parsed says nothing about the orientation
    return int(value) if value in range(1, 9) else 1


def turned_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Width and height of a picture of this stored size, as its EXIF orientation shows it."""
    return size if orientation < 5 else size[::-1]


def check_annotated(
    stored: tuple[int, int], orientation: int, annotated: tuple[int, int], exif: Exif, name: str
) -> bool:
    """Whether annotations refer to the upright pixels instead of the stored ones, by their sizes. Raises WrongSize."""
    upright = turned_size(stored, orientation)
    allowed = {"auto": (upright, stored), "upright": (upright,), "stored": (stored,)}[exif]
    if annotated not in allowed:
        turned = f" ({upright[0]} x {upright[1]} upright)" if upright != stored else ""
        why = f", and data.exif={exif}" if annotated in (upright, stored) else ""
        raise WrongSize(
            name,
            f"has {stored[0]} x {stored[1]} pixels{turned}, but is annotated as {annotated[0]} x {annotated[1]}{why}",
        )
    return exif != "stored" and annotated == upright


def as_exif(word: str) -> Exif:
    """The word, checked. Raises ResnestError."""
    if word not in get_args(Exif):
        raise ResnestError(f"{parameter('exif', word)}: expected {', '.join(get_args(Exif))}")
    return cast(Exif, word)


def orientation_of(content: bytes) -> tuple[int, tuple[int, int]]:
    """The EXIF orientation of a file, 1 to 8, and its width and height upright. Raises BadImage.

    1 is upright, as is what has no orientation.
    """
    with refusing("image", FORMATS):
        image = _open(content, "image", FORMATS, MAX_PIXELS)
        if image.format == "PNG":
            image.load()  # the EXIF data may lie behind its pixels
        orientation = exif_orientation(image)
    return orientation, turned_size(image.size, orientation)


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """The picture turned as its EXIF orientation says."""
    if orientation != 1:
        # In place: turns the pixels first and mends the EXIF data then, which may fail.
        with contextlib.suppress(OSError, ValueError, SyntaxError, struct.error, TypeError, KeyError):
            ImageOps.exif_transpose(image, in_place=True)
    return image


def _reduce(image: Image.Image, spare: float) -> float:
    """Decode a JPEG at its smallest scale that is at least 1 / `spare`; returns the divisor."""
    wanted = next((scale for scale in SCALES if scale <= spare), 1)
    width, height = image.size
    drafted = image.draft(None, (width // wanted, height // wanted)) if wanted > 1 else None
    return width / drafted[1][2] if drafted else 1.0


def to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # 16-bit greyscale: Pillow's own conversion clips at 255
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")
