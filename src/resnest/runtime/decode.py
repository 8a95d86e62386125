"""One safe way from bytes to an RGB image, used by training, evaluation, prediction and the server.

    image = decode_image(Path("rose.jpg"))        # PIL.Image, mode RGB, upright

The order matters (promise P11): byte cap, format by content, header, pixel cap, decode, orientation, RGB. A file
is refused by its header before a pixel of it is decoded: a PNG of 190 KB can claim 200 megapixels.
"""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from resnest.errors import ResnestError

# Common and well fuzzed; told apart by their first bytes, never by the file's name. No EPS, SVG or TIFF.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")  # what folder scans pick up, upper case too
MAX_BYTES = 100 * 2**20
MAX_PIXELS = 89_478_485  # Pillow's own limit for a quarter of a gigabyte of RGB


class BadImage(ResnestError):
    """A file that is not a usable image; `reason` says why without naming the file."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type[BadImage], tuple[str, str]]:
        return type(self), (self.name, self.reason)  # so that it crosses from a worker process


def decode_image(
    source: bytes | Path,
    *,
    name: str = "",
    formats: tuple[str, ...] = FORMATS,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Decode bytes or a file into an upright RGB image.

    CMYK, palette and 16-bit images are converted (16 bits to the upper 8), alpha is dropped, EXIF orientation is
    applied.

    Raises:
        BadImage: empty, too large, of another format, truncated, damaged, or animated.
    """
    name = name or (str(source) if isinstance(source, Path) else "image")
    content = _read(source, name, max_bytes)
    if not content:
        raise BadImage(name, "empty file")
    if len(content) > max_bytes:
        raise BadImage(name, f"larger than {max_bytes / 2**20:g} MiB")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of what is checked or converted here
            image = Image.open(io.BytesIO(content), formats=formats)
            _check_header(image, name, max_pixels)
            image.load()
            return _to_rgb(_upright(image))
    except UnidentifiedImageError:
        raise BadImage(name, f"not a {', '.join(formats[:-1])} or {formats[-1]} image") from None
    except Image.DecompressionBombError as error:
        raise BadImage(name, f"too many pixels ({error})") from None
    except (OSError, ValueError, SyntaxError, struct.error, EOFError, IndexError, TypeError, OverflowError) as error:
        if isinstance(error, BadImage):
            raise
        raise BadImage(name, f"damaged ({str(error) or type(error).__name__})") from None


def _read(source: bytes | Path, name: str, max_bytes: int) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        with source.open("rb") as file:
            return file.read(max_bytes + 1)
    except OSError as error:
        raise BadImage(name, f"cannot be read ({error.strerror or error})") from None


def _check_header(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise BadImage(name, f"too many pixels ({width} x {height}, at most {max_pixels / 1e6:.0f} megapixels)")
    # MPO is how phones store a JPEG with its depth map or second view; the first picture is the photo.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise BadImage(name, f"animated ({getattr(image, 'n_frames', 1)} frames)")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, struct.error, TypeError, KeyError, ZeroDivisionError):
        return image  # EXIF that cannot be parsed says nothing about the orientation


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # 16-bit greyscale: Pillow's own conversion clips at 255
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")
