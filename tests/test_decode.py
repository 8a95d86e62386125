"""Safe decoding (P11, P12's decoder): what is converted, what is refused and why, and that refusing is cheap."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from conftest import encoded
from resnest.runtime.decode import BadImage, Box, decode_for_crop, decode_image, read_capped


def _image(mode: str = "RGB", size: tuple[int, int] = (20, 10)) -> Image.Image:
    ramp = np.linspace(0, 255, size[0] * size[1] * 3).reshape(size[1], size[0], 3).astype(np.uint8)
    return Image.fromarray(ramp).convert(mode)


def _png_of(width: int, height: int) -> bytes:
    """A valid header and a little data: what a decompression bomb looks like before decoding."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * (width + 1) * 64)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _animated(format: str) -> bytes:
    frames = [_image(), _image().rotate(180)]
    return encoded(frames[0], format, save_all=True, append_images=frames[1:])


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _turned() -> bytes:
    return encoded(_image(), "JPEG", exif=_exif(6), quality=95)  # by 90 degrees clockwise


def _sixteen_bits() -> bytes:
    return encoded(Image.fromarray(np.full((10, 20), 40_000, np.uint16)), "PNG")


JPEG = encoded(_image(), "JPEG", quality=95)

REFUSED = {
    "zero bytes": (b"", "empty file"),
    "text": (b"not an image at all", "not a JPEG"),
    "truncated": (JPEG[: len(JPEG) // 2], "(?i)truncated"),
    "header only": (JPEG[:20], "not a JPEG|damaged"),
    "tiff": (encoded(_image(), "TIFF"), "not a JPEG"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a JPEG"),
    "svg": (b"<svg xmlns='x'/>", "not a JPEG"),
    "animated gif": (_animated("GIF"), r"animated \(2 frames\)"),
    "animated png": (_animated("PNG"), r"animated \(2 frames\)"),
    "animated webp": (_animated("WEBP"), r"animated \(2 frames\)"),
    "200 megapixels": (_png_of(20_000, 10_000), "too many pixels"),
    "a bomb": (_png_of(60_000, 60_000), "too many pixels .3600 megapixels, at most 89"),
}

CONVERTED = {
    "grey": encoded(_image("L"), "PNG"),
    "grey with alpha": encoded(_image("LA"), "PNG"),
    "palette": encoded(_image("P"), "PNG"),
    "palette with transparency": encoded(_image("P"), "PNG", transparency=b"\0\x80"),
    "alpha": encoded(_image("RGBA"), "PNG"),
    "one bit": encoded(_image("1"), "PNG"),
    "cmyk": encoded(_image("CMYK"), "JPEG"),
    "16 bits": _sixteen_bits(),
    "webp": encoded(_image(), "WEBP"),
    "bmp": encoded(_image(), "BMP"),
    "still gif": encoded(_image(), "GIF"),
}


def _whole(width: int, height: int) -> Box:
    return 0, 0, width, height


def _for_crop(content: bytes, name: str = "image") -> Image.Image:
    return decode_for_crop(content, _whole, at_least=1, name=name)[0]


@pytest.mark.parametrize("decode", [decode_image, _for_crop])
@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_reason(case: str, decode: Callable[..., Image.Image]) -> None:
    content, reason = REFUSED[case]
    with pytest.raises(BadImage, match=reason) as caught:
        decode(content, name="photo.jpg")
    assert str(caught.value).startswith("photo.jpg: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", CONVERTED)
def test_converted_to_rgb(case: str) -> None:
    image = decode_image(CONVERTED[case])
    assert (image.mode, image.size) == ("RGB", (20, 10))
    in_full, box = decode_for_crop(CONVERTED[case], _whole, at_least=None)
    assert np.array_equal(in_full, image)
    assert box == (0, 0, 20, 10)


def test_sixteen_bits_keep_their_brightness() -> None:
    assert np.asarray(decode_image(_sixteen_bits())).max() == 40_000 >> 8


def test_exif_orientation_is_applied() -> None:
    upright = decode_image(_turned())
    assert upright.size == (10, 20)
    turned = np.asarray(decode_image(JPEG).transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert np.abs(np.asarray(upright).astype(int) - turned).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_pixels_are_those_of_pillow(format: str, orientation: int) -> None:
    content = encoded(_image(), format, exif=_exif(orientation))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    assert np.array_equal(decode_image(content), expected)
    assert np.array_equal(decode_for_crop(content, _whole, at_least=None)[0], expected)


@pytest.mark.parametrize(
    ("side", "at_least", "size"),
    [
        (100, 100, (203, 157)),
        (100, 50, (102, 79)),
        (100, 51, (203, 157)),
        (100, 25, (51, 40)),
        (100, 3, (26, 20)),
        (1, 1, (203, 157)),
    ],
)
def test_a_jpeg_is_decoded_no_finer_than_the_crop_needs(side: int, at_least: int, size: tuple[int, int]) -> None:
    content = encoded(_image(size=(203, 157)), "JPEG")
    image, box = decode_for_crop(content, lambda width, height: (0, 0, side, side + 20), at_least=at_least)
    assert image.size == size
    assert min(box[2] - box[0], box[3] - box[1]) >= min(at_least, side)
    png = encoded(_image(size=(203, 157)), "PNG")
    assert decode_for_crop(png, lambda width, height: (0, 0, side, side), at_least=at_least)[0].size == (203, 157)


@pytest.mark.parametrize("at_least", [120, 60, 30])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_crop_lies_where_the_full_one_does(orientation: int, at_least: int) -> None:
    """On a ramp, brightness tells the place; the sides leave 1 pixel over when divided by 2, 4 or 8."""
    for ramp in np.mgrid[:337, :401]:
        grey = Image.fromarray((ramp / ramp.max() * 255).astype(np.uint8))
        content = encoded(grey, "JPEG", exif=_exif(orientation), quality=95)
        means = []
        for keep in (None, at_least):
            image, box = decode_for_crop(content, lambda width, height: (30, 21, 271, 271), at_least=keep)
            means.append(np.asarray(image.resize((8, 8), Image.Resampling.BILINEAR, box)).mean())
        assert image.size != grey.size
        assert abs(means[0] - means[1]) < 0.4  # a pixel of the full image makes 0.6 to 0.8


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_a_reduced_jpeg_is_rgb_and_complete(mode: str) -> None:
    content = encoded(_image(mode, size=(160, 80)), "JPEG")
    image, _ = decode_for_crop(content, _whole, at_least=10)
    assert (image.mode, image.size) == ("RGB", (20, 10))
    with pytest.raises(BadImage, match=r"(?i)truncated"):
        decode_for_crop(content[:-60], _whole, at_least=10)


def test_what_choosing_a_crop_raises_is_not_blamed_on_the_file() -> None:
    with pytest.raises(ZeroDivisionError):
        decode_for_crop(JPEG, lambda width, height: 1 / 0, at_least=1)


def test_the_name_says_nothing_about_the_format(tmp_path: Path) -> None:
    path = tmp_path / "really-a-png.jpg"
    path.write_bytes(CONVERTED["alpha"])
    assert decode_image(path).size == (20, 10)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="No such file"):
        decode_image(tmp_path / "nothing.jpg")


def test_byte_cap() -> None:
    with pytest.raises(BadImage, match="larger than"):
        decode_image(JPEG, max_bytes=100)


def test_reading_stops_at_the_cap(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    for size in (0, 9, 10, 11, 30):
        path.write_bytes(b"x" * size)
        assert read_capped(path, 10) == b"x" * min(size, 11)


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "pipe.jpg"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(JPEG,))
    writer.start()
    assert decode_image(path).size == (20, 10)
    writer.join()


def test_refusing_a_bomb_is_quick() -> None:
    started = time.perf_counter()
    with pytest.raises(BadImage):
        decode_image(_png_of(14_000, 14_000))
    assert time.perf_counter() - started < 0.05


def test_mutated_files_never_escape_as_other_errors() -> None:
    rng = np.random.default_rng(0)
    files = [JPEG, _turned(), *CONVERTED.values()]
    for round_ in range(600):
        content = bytearray(files[round_ % len(files)])
        for place in rng.integers(0, len(content), 8):
            content[place] = rng.integers(256)
        with contextlib.suppress(BadImage):
            assert decode_image(bytes(content)).mode == "RGB"
        with contextlib.suppress(BadImage):
            assert decode_for_crop(bytes(content), _whole, at_least=5)[0].mode == "RGB"
