"""How a model reads pictures: with how many channels, and which value is full; and a file's pixels, read so.

    read_picture(Path("scene.tif"), Bands(4))               # Raster of 4 bands
    read_picture(b"...", Bands(1), name="x.png")            # Raster of 1 band: grey
    read_picture(Path("rose.jpg"))                          # as `decode_image`: a Pillow image in RGB

A file has as many bands as its pixels have values. They are used as they are if they are as many as the channels;
colours become grey for one channel, grey is repeated for three, and alpha is dropped where it is one too many. Any
other number is refused. RGB of 8 bits is a Pillow image, everything else a `Raster`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.runtime.band_files import NUMPY, channels_last, read_array, read_tiff, turned
from resnest.runtime.decode import (
    MAX_BYTES,
    MAX_PIXELS,
    BadImage,
    Box,
    Exif,
    check_annotated,
    decode_for_crop,
    decode_image,
    decode_upright,
    png_samples,
    read_content,
    to_rgb,
)
from resnest.runtime.decode import orientation_of as of_photograph
from resnest.runtime.inputs import ImageInput, content_of, to_image, upright_copy
from resnest.runtime.raster import FULL, Raster
from resnest.runtime.tiff import STARTS as TIFF

GREY = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R 601-2, as Pillow's mode L
USUAL = {"RGB": "RGB", "RGBA": "RGBA", "L": "grey", "LA": "grey with alpha"}


@dataclass(frozen=True)
class Bands:
    """What a model takes of a picture.

    Args:
        channels: of the network's input.
        value_range: the value that counts as 1.0 before mean and std; None: by the data type of each file.
    """

    channels: int = 3
    value_range: float | None = None

    @property
    def plain(self) -> bool:
        """Whether pictures are those of cameras: RGB of 8 bits, to which others are converted."""
        return self.channels == 3 and self.value_range is None

    def describe(self) -> str:
        known = {1: "grey", 3: "RGB"}.get(self.channels, f"{self.channels} channels")
        return known if self.value_range is None else f"{known}, values up to {self.value_range:g}"


RGB = Bands()
AS_IS = Bands(0)  # with all bands that a file has, whatever their values


def blank(bands: Bands, width: int, height: int) -> Image.Image:
    """An even picture as a model takes it."""
    if bands.plain:
        return Image.new("RGB", (width, height), (128, 128, 128))
    half = (bands.value_range or FULL["float32"]) / 2
    return Raster.of(np.full((height, width, bands.channels), half, np.float32))


def read_picture(
    source: bytes | Path,
    bands: Bands = RGB,
    *,
    name: str = "",
    annotated: tuple[int, int] | None = None,
    exif: Exif = "auto",
    **limits: Any,
) -> Image.Image:
    """A file's picture as a model takes it: `decode_image` with more formats, TIFF and NumPy's.

    Args:
        annotated, exif: as for `decode_image`.
        limits: further arguments of it.

    Raises:
        BadImage: as `decode_image`; a number of bands that the model does not take, values that are not finite, a data
            type whose full value is not known.
    """
    name = name or (str(source) if isinstance(source, Path) else "image")
    content = read_content(source, name, limits.get("max_bytes", MAX_BYTES))
    if not is_bands_file(content):
        if bands.plain:
            return decode_image(content, name=name, annotated=annotated, exif=exif, **limits)
        image = decode_upright(content, name=name, annotated=annotated, exif=exif, **limits)
        return to_bands(image, bands, name, bits=_bits(content))
    most = limits.get("max_pixels", MAX_PIXELS)
    if content.startswith(NUMPY):
        image, orientation = Raster.of(read_array(content, bands.channels, name, most)), 1
    else:
        image, orientation = read_tiff(content, name, most)
    if annotated and not check_annotated(image.size, orientation, annotated, exif, name):
        orientation = 1
    return to_bands(turned(image, orientation), bands, name)


def read_for_crop(
    content: bytes, choose: Callable[[int, int], Box], bands: Bands, *, at_least: int | None, name: str = "image"
) -> tuple[Image.Image, Box]:
    """`decode_for_crop` with more formats; only 8-bit pictures are decoded at a fraction of their size."""
    if content.startswith(b"\xff\xd8\xff") or (bands.plain and not is_bands_file(content)):
        image, box = decode_for_crop(content, choose, at_least=at_least, name=name)
        return (image if bands.plain else to_bands(image, bands, name)), box
    image = read_picture(content, bands, name=name)
    return image, choose(*image.size)


def orientation_of(content: bytes) -> tuple[int, tuple[int, int]]:
    """As of `decode`; of TIFF and NumPy's files 1 and no size, as they are read upright. Raises BadImage."""
    return (1, (0, 0)) if is_bands_file(content) else of_photograph(content)


def is_bands_file(start: bytes) -> bool:
    """Whether a file that begins like this is read here and not by `decode_image`."""
    return start.startswith((*TIFF, NUMPY))


def to_picture(source: ImageInput | Image.Image, bands: Bands, name: str = "image") -> Image.Image:
    """`to_image` for any channels, and files as of `read_picture`: arrays are in the units of the model's pictures.

    Raises:
        BadImage, WrongInput: as `to_image`.
    """
    if bands.plain and isinstance(source, Image.Image | np.ndarray) and not isinstance(source, Raster):
        return to_image(source, name)
    if isinstance(source, np.ndarray):
        if not source.size:
            raise BadImage(name, f"has no pixels {source.shape}")
        return to_bands(Raster.of(channels_last(source, bands.channels, name)), bands, name)
    if isinstance(source, Raster):
        return to_bands(source, bands, name)
    if isinstance(source, Image.Image):
        return to_bands(upright_copy(source, name), bands, name)
    return read_picture(content_of(source, name), bands, name=name)


def to_bands(image: Image.Image, bands: Bands, name: str, *, bits: int = 8) -> Image.Image:
    """A picture as a model takes it; RGB of 8 bits stays a Pillow image where that is what it takes.

    Args:
        bits: of the file, where Pillow reads 8 only.

    Raises:
        BadImage: it has another number of bands, or values of another range.
    """
    if isinstance(image, Raster):
        pixels, kind, colours = np.asarray(image), image.kind, image.colours
    else:
        image = image if image.mode == "I" else _known_mode(image)
        if bits > 8 and image.mode not in ("I;16", "I", "F"):
            raise BadImage(name, f"has {bits} bits in each channel, of which 8 would be read: save it as TIFF")
        kind, colours = {"I;16": "uint16", "I": "int32", "F": "float32"}.get(image.mode, "uint8"), image.mode
        if image.mode == "RGB" and bands.plain:
            return image
        pixels = np.asarray(image)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels  # (H, W, C)
    raster = Raster.of(_chosen(pixels, colours, bands.channels, name), kind)
    if bands == AS_IS:
        raster.colours = colours
        return raster
    _check_values(raster, bands, name)
    raster.info["made_grey"] = bands.channels == 1 and colours in ("RGB", "RGBA")
    if bands.plain and kind == "uint8":
        return Image.fromarray(np.asarray(raster))
    return raster


def _known_mode(image: Image.Image) -> Image.Image:
    """In one of the modes L, LA, RGB, RGBA, I;16 and F."""
    if image.mode.startswith("I;16"):
        return image if image.mode == "I;16" else Image.fromarray(np.asarray(image).astype(np.uint16))
    if image.mode == "1":
        return image.convert("L")
    if image.mode == "PA" or (image.mode in ("P", "L", "RGB") and "transparency" in image.info):
        return image.convert("RGBA") if image.mode != "L" else image.convert("LA")
    return image if image.mode in ("L", "LA", "RGB", "RGBA", "F") else to_rgb(image)


def _chosen(pixels: NDArray[Any], colours: str, channels: int, name: str) -> NDArray[Any]:
    """(H, W, bands) -> (H, W, channels), where what a file's bands are allows it."""
    count = pixels.shape[2]
    if channels in (count, AS_IS.channels):
        return pixels
    if colours in ("LA", "RGBA") and count - 1 == channels:
        return pixels[..., :-1]
    if channels == 3 and (count == 1 or colours == "LA"):
        return np.repeat(pixels[..., :1], 3, axis=2)
    if channels == 4 and colours == "LA":
        return pixels[..., [0, 0, 0, 1]]
    if channels == 1 and colours in ("RGB", "RGBA"):
        return _grey(pixels[..., :3])
    what = f" ({USUAL[colours]})" if colours in USUAL else ""
    raise BadImage(name, f"has {count} band{'s' if count != 1 else ''}{what}, and in_chans={channels} are expected")


def _check_values(raster: Raster, bands: Bands, name: str) -> None:
    if raster.kind.startswith(("float", "complex")):
        wrong = int(np.count_nonzero(~np.isfinite(np.asarray(raster))))
        if wrong:
            raise BadImage(name, f"has {wrong:,} values that are no finite numbers (NaN or infinite)")
    if raster.full is None and bands.value_range is None:
        pixels = np.asarray(raster)
        values = f"{raster.kind} values, here {pixels.min():g} to {pixels.max():g}"
        raise BadImage(name, f"has {values}: which one is 1.0 is not known, set data.value_range")
    if raster.kind == "uint8" and bands.value_range is not None and bands.value_range > FULL["uint8"]:
        raise BadImage(name, f"has 8-bit values, and data.value_range={bands.value_range:g} is for larger ones")


def _grey(pixels: NDArray[Any]) -> NDArray[Any]:
    """(H, W, 3) -> (H, W, 1), of bytes by Pillow."""
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))[..., None]
    return np.asarray(pixels @ np.array(GREY, np.float32), np.float32)[..., None]


def _bits(content: bytes) -> int:
    """Of a sample of a PNG in colours, of which Pillow reads 8 at most; 8 for all else."""
    bits, grey = png_samples(content)
    return bits if bits > 8 and not grey else 8
