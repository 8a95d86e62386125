"""Safe decoding (P11, P12's decoder): what is converted, what is refused and why, and that refusing is cheap."""

from __future__ import annotations

import contextlib
import io
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnest.runtime.decode import BadImage, decode_image


def _image(mode: str = "RGB", size: tuple[int, int] = (20, 10)) -> Image.Image:
    ramp = np.linspace(0, 255, size[0] * size[1] * 3).reshape(size[1], size[0], 3).astype(np.uint8)
    return Image.fromarray(ramp).convert(mode)


def _encode(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _png_of(width: int, height: int) -> bytes:
    """A valid header and a little data: what a decompression bomb looks like before decoding."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * (width + 1) * 64)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _animated(format: str) -> bytes:
    frames = [_image(), _image().rotate(180)]
    return _encode(frames[0], format, save_all=True, append_images=frames[1:])


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees clockwise
    return _encode(_image(), "JPEG", exif=exif, quality=95)


def _sixteen_bits() -> bytes:
    return _encode(Image.fromarray(np.full((10, 20), 40_000, np.uint16)), "PNG")


JPEG = _encode(_image(), "JPEG", quality=95)

REFUSED = {
    "zero bytes": (b"", "empty file"),
    "text": (b"not an image at all", "not a JPEG"),
    "truncated": (JPEG[: len(JPEG) // 2], "(?i)truncated"),
    "header only": (JPEG[:20], "not a JPEG|damaged"),
    "tiff": (_encode(_image(), "TIFF"), "not a JPEG"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a JPEG"),
    "svg": (b"<svg xmlns='x'/>", "not a JPEG"),
    "animated gif": (_animated("GIF"), r"animated \(2 frames\)"),
    "animated png": (_animated("PNG"), r"animated \(2 frames\)"),
    "animated webp": (_animated("WEBP"), r"animated \(2 frames\)"),
    "200 megapixels": (_png_of(20_000, 10_000), "too many pixels"),
    "a bomb": (_png_of(60_000, 60_000), "too many pixels"),
}

CONVERTED = {
    "grey": _encode(_image("L"), "PNG"),
    "grey with alpha": _encode(_image("LA"), "PNG"),
    "palette": _encode(_image("P"), "PNG"),
    "palette with transparency": _encode(_image("P"), "PNG", transparency=b"\0\x80"),
    "alpha": _encode(_image("RGBA"), "PNG"),
    "one bit": _encode(_image("1"), "PNG"),
    "cmyk": _encode(_image("CMYK"), "JPEG"),
    "16 bits": _sixteen_bits(),
    "webp": _encode(_image(), "WEBP"),
    "bmp": _encode(_image(), "BMP"),
    "still gif": _encode(_image(), "GIF"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_reason(case: str) -> None:
    content, reason = REFUSED[case]
    with pytest.raises(BadImage, match=reason) as caught:
        decode_image(content, name="photo.jpg")
    assert str(caught.value).startswith("photo.jpg: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", CONVERTED)
def test_converted_to_rgb(case: str) -> None:
    image = decode_image(CONVERTED[case])
    assert (image.mode, image.size) == ("RGB", (20, 10))


def test_sixteen_bits_keep_their_brightness() -> None:
    assert np.asarray(decode_image(_sixteen_bits())).max() == 40_000 >> 8


def test_exif_orientation_is_applied() -> None:
    upright = decode_image(_turned())
    assert upright.size == (10, 20)
    turned = np.asarray(decode_image(JPEG).transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert np.abs(np.asarray(upright).astype(int) - turned).max() <= 2


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
