"""Files of any number of bands, read without loss: TIFF, NumPy, PNG; and what is refused."""

from __future__ import annotations

import contextlib
import io
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from resnest.data.sources import open_dataset
from resnest.errors import ResnestError
from resnest.runtime.bands import Bands, read_for_crop, read_picture, to_picture
from resnest.runtime.decode import BadImage, decode_image
from resnest.runtime.raster import Raster, unit_pixels
from resnest.runtime.shown import drawable, shown

HIGH, WIDE = 20, 31


def values(channels: int, dtype: str, *, seed: int = 0) -> NDArray[Any]:
    """(H, W, C) over the whole range of the type."""
    rng = np.random.default_rng(seed)
    shape = (HIGH, WIDE, channels)
    if dtype.startswith("float"):
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def tiff(pixels: NDArray[Any], layout: str = "contig", **options: Any) -> bytes:
    """A file of (H, W, C): samples interleaved ("contig") or in planes ("separate"), or a band a page ("pages")."""
    file, planes = io.BytesIO(), np.moveaxis(pixels, -1, 0)
    if layout == "pages":
        with tifffile.TiffWriter(file) as writer:
            for plane in planes:
                writer.write(plane, photometric="minisblack", metadata=None, **options)
    elif pixels.shape[2] == 1:
        tifffile.imwrite(file, pixels[..., 0], **{"photometric": "minisblack", **options})
    elif layout == "contig":
        tifffile.imwrite(file, pixels, **{"photometric": "minisblack", "planarconfig": "contig", **options})
    else:
        tifffile.imwrite(file, planes, **{"photometric": "minisblack", "planarconfig": layout, **options})
    return file.getvalue()


def saved(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def png(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


LAYOUTS = [
    *((layout, options) for layout in ("contig", "separate", "pages") for options in ({}, {"compression": "zlib"})),
    ("contig", {"bigtiff": True}),
    ("contig", {"byteorder": ">"}),
    ("contig", {"tile": (16, 16)}),
    ("separate", {"rowsperstrip": 3}),
]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float16"])
@pytest.mark.parametrize("channels", [2, 4, 7])
@pytest.mark.parametrize(("layout", "options"), LAYOUTS, ids=str)
def test_tiff_is_read_without_loss(layout: str, options: dict[str, Any], channels: int, dtype: str) -> None:
    pixels = values(channels, dtype)
    image = read_picture(tiff(pixels, layout, **options), Bands(channels))
    assert isinstance(image, Raster)
    assert (image.kind, image.size, len(image.bands)) == (dtype, (WIDE, HIGH), channels)
    np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("order", ["HWC", "CHW", "fortran", "other bytes"])
def test_numpy_is_read_without_loss(order: str, dtype: str) -> None:
    pixels = values(4, dtype)
    array = {
        "HWC": pixels,
        "CHW": np.moveaxis(pixels, -1, 0),
        "fortran": np.asfortranarray(pixels),
        "other bytes": pixels.astype(pixels.dtype.newbyteorder(">")),
    }[order]
    read = np.asarray(read_picture(saved(array), Bands(4)))
    np.testing.assert_array_equal(read, pixels.astype(read.dtype))
    assert read.dtype == (np.uint8 if dtype == "uint8" else np.float32)


GREY = Image.fromarray(values(1, "uint8")[..., 0])
DEEP = Image.fromarray(values(1, "uint16")[..., 0])
RGB = Image.fromarray(values(3, "uint8"))
RGBA = Image.fromarray(values(4, "uint8"))
LA = Image.merge("LA", (GREY, GREY.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))
PALETTE = RGB.quantize(16)

CONVERTED: dict[str, tuple[bytes, int, Any]] = {  # file, channels, what it becomes
    "grey for 1": (png(GREY), 1, GREY),
    "grey JPEG for 1": (png(GREY, "JPEG"), 1, Image.open(io.BytesIO(png(GREY, "JPEG")))),
    "16-bit grey for 1": (png(DEEP), 1, DEEP),
    "colours for 1": (png(RGB), 1, RGB.convert("L")),
    "RGBA for 1": (png(RGBA), 1, RGBA.convert("RGB").convert("L")),
    "palette for 1": (png(PALETTE), 1, PALETTE.convert("RGB").convert("L")),
    "grey with alpha for 1": (png(LA), 1, GREY),
    "grey with alpha for 2": (png(LA), 2, LA),
    "RGBA for 4": (png(RGBA), 4, RGBA),
    "RGBA TIFF for 4": (tiff(np.asarray(RGBA), photometric="rgb", extrasamples=["unassalpha"]), 4, RGBA),
    "RGBA TIFF for 3": (tiff(np.asarray(RGBA), photometric="rgb", extrasamples=["unassalpha"]), 3, RGBA.convert("RGB")),
    "RGB TIFF for 3": (tiff(np.asarray(RGB), photometric="rgb"), 3, RGB),
    "RGB TIFF of Pillow for 3": (png(RGB, "TIFF"), 3, RGB),
    "grey TIFF for 3": (png(GREY, "TIFF"), 3, GREY.convert("RGB")),
    "LZW of Pillow": (png(DEEP, "TIFF"), 1, DEEP),
    "16-bit RGB TIFF for 3": (tiff(values(3, "uint16"), photometric="rgb"), 3, values(3, "uint16")),
    "16-bit grey TIFF for 3": (tiff(values(1, "uint16")), 3, np.repeat(values(1, "uint16"), 3, axis=2)),
    "white is zero": (tiff(65535 - values(1, "uint16"), photometric="miniswhite"), 1, values(1, "uint16")),
    "float TIFF for 1": (tiff(values(1, "float32")), 1, values(1, "float32")),
    "black and white": (png(GREY.convert("1"), "TIFF"), 1, GREY.convert("1").convert("L")),
    "array for 1": (saved(values(1, "uint16")[..., 0]), 1, values(1, "uint16")),
    "grey array for 3": (saved(np.asarray(GREY)), 3, GREY.convert("RGB")),
    "array of bool": (saved(np.asarray(GREY) > 99), 1, np.uint8(255) * (np.asarray(GREY) > 99)),
}


@pytest.mark.parametrize("case", CONVERTED)
def test_bands_become_channels(case: str) -> None:
    content, channels, expected = CONVERTED[case]
    wanted = np.asarray(expected)
    wanted = wanted[..., None] if wanted.ndim == 2 else wanted
    read = np.asarray(read_picture(content, Bands(channels)))
    assert read.shape[2] == channels
    np.testing.assert_array_equal(read, wanted)


def test_photographs_are_pillow_images_as_before() -> None:
    for image in (GREY, RGB, RGBA, DEEP, PALETTE, LA):
        read = read_picture(png(image))
        assert read.mode == "RGB"
        assert read == decode_image(png(image))
    assert not isinstance(read_picture(tiff(np.asarray(RGB), photometric="rgb")), Raster)


def _with(pixels: NDArray[Any], value: float) -> NDArray[Any]:
    pixels[0, :3, 0] = value
    return pixels


def _turned(pixels: NDArray[Any], orientation: int) -> bytes:
    return tiff(pixels, extratags=[(274, "H", 1, orientation, True)])


BAD: dict[str, tuple[bytes, Bands, str]] = {
    "four of three": (tiff(values(4, "uint16")), Bands(3), r"^x: has 4 bands, and in_chans=3 are expected"),
    "three of four": (tiff(values(3, "uint16"), "pages"), Bands(4), r"has 3 bands, and in_chans=4"),
    "RGB for 4": (png(RGB), Bands(4), r"has 3 bands \(RGB\), and in_chans=4"),
    "grey for 4": (png(GREY), Bands(4), r"has 1 band \(grey\), and in_chans=4"),
    "NaN": (tiff(_with(values(4, "float32"), np.nan)), Bands(4), r"has 3 values that are no finite numbers"),
    "infinite": (saved(_with(values(1, "float32"), -np.inf)), Bands(1), r"has 3 values that are no finite numbers"),
    "signed": (
        tiff(values(2, "int16")),
        Bands(2),
        r"int16 values, here \d+ to 3\d+: which one is 1.0 is not known",
    ),
    "32 bits": (saved(values(2, "uint32")), Bands(2), r"uint32 values, here .*set data.value_range"),
    "8 bits of 12": (png(GREY), Bands(1, 4095), r"has 8-bit values, and data.value_range=4095 is for larger ones"),
    "two shapes": (
        saved(np.zeros((4, 9, 4), np.uint8)),
        Bands(4),
        r"\(4, 9, 4\), which may be \(H, W, 4\) or \(4, H, W\)",
    ),
    "no shape": (
        saved(np.zeros((5, 9, 6), np.uint8)),
        Bands(4),
        r"\(5, 9, 6\), and in_chans=4: expected \(H, W\), \(H, W",
    ),
    "four sides": (saved(np.zeros((1, 4, 9, 6), np.uint8)), Bands(4), r"has the shape \(1, 4, 9, 6\)"),
    "a vector": (saved(np.zeros(512, np.float32)), Bands(1), r"has the shape \(512,\)"),
    "complex": (saved(np.zeros((4, 4), complex)), Bands(1), r"values of type complex128: expected integers or floats"),
    "objects": (saved(np.array([[{}]], object)), Bands(1), r"values of type object"),
    "empty array": (saved(np.zeros((0, 4), np.uint8)), Bands(1), r"has no pixels \(0, 4\)"),
    "cut array": (saved(values(4, "uint16"))[:-9], Bands(4), r"damaged \(\d+ bytes for values of shape \(20, 31, 4\)"),
    "array's header": (b"\x93NUMPY\x01\0v\0nonsense", Bands(4), r"damaged"),
    "huge array": (saved(np.zeros(1, np.uint8)).replace(b"(1,)", b"(99999999, 9999)"), Bands(1), r"damaged"),
    "cut TIFF": (tiff(values(4, "uint16"))[:300], Bands(4), r"damaged"),
    "only a header": (b"II*\0\x08\0\0\0", Bands(4), r"damaged"),
    "too many pages": (
        tiff(np.zeros((2, 2, 1100), np.uint8), "pages"),
        Bands(4),
        r"has 1100 pages, at most 1024 are b",
    ),
    "two sizes": (b"", Bands(2), r"has pages of several sizes or types \(.*\): bands are of one"),
    "16-bit RGB PNG": (b"", Bands(3, 65535), r"has 16 bits in each channel, of which 8 would be read: save it as TIFF"),
    "no image": (b"nothing", Bands(4), r"not a JPEG"),
}


def _two_sizes() -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(values(1, "uint16")[..., 0], metadata=None)
        writer.write(values(1, "uint16")[:9, :, 0], metadata=None)
    return file.getvalue()


def _deep_png() -> bytes:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(6 * 4) for _ in range(4))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


MADE = {"two sizes": _two_sizes, "16-bit RGB PNG": _deep_png}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read_is_refused_in_one_line(case: str) -> None:
    content, bands, reason = BAD[case]
    with pytest.raises(BadImage, match=reason) as caught:
        read_picture(content or MADE[case](), bands, name="x")
    assert "\n" not in str(caught.value)


def test_damaged_files_are_bad_images_and_nothing_else() -> None:
    """What the parsers of TIFF and of NumPy's headers raise, whatever it is."""
    rng = np.random.default_rng(0)
    whole = [tiff(values(4, "uint16"), layout, **options) for layout, options in LAYOUTS]
    whole += [saved(values(4, "uint16")), png(DEEP, "TIFF")]
    for number in range(600):
        content = bytearray(whole[number % len(whole)])
        for place in rng.integers(0, 160 if content.startswith(b"\x93NUMPY") else 500, rng.integers(1, 6)).tolist():
            content[place : place + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"-1, ", rng.bytes(4)])
        with contextlib.suppress(BadImage):
            read_picture(bytes(content), Bands(4), name="x")


@pytest.mark.parametrize(("layout", "options"), LAYOUTS, ids=str)
def test_what_is_cut_short_is_never_read(layout: str, options: dict[str, Any]) -> None:
    content = tiff(values(4, "uint16"), layout, **options)
    for share in (0.3, 0.5, 0.7, 0.9, 0.99):
        with pytest.raises(BadImage):
            read_picture(content[: int(len(content) * share)], Bands(4))


def test_signed_values_are_read_where_their_range_is_given() -> None:
    pixels = values(2, "int16")
    image = read_picture(tiff(pixels), Bands(2, 1000))
    np.testing.assert_allclose(unit_pixels(image, 1000), pixels / np.float32(1000), rtol=1e-6)


def test_tiff_is_turned_upright() -> None:
    pixels = values(4, "uint16")
    for orientation in range(1, 9):
        plain = Image.fromarray(pixels[..., 0].astype(np.float32))
        plain.getexif()[274] = orientation
        from PIL import ImageOps

        wanted = np.asarray(ImageOps.exif_transpose(plain))
        image = read_picture(_turned(pixels, orientation), Bands(4))
        np.testing.assert_array_equal(np.asarray(image)[..., 0], wanted)
        stored = read_picture(_turned(pixels, orientation), Bands(4), annotated=(WIDE, HIGH), exif="stored")
        np.testing.assert_array_equal(np.asarray(stored), pixels)


# --- The raster moves as Pillow's images do ---


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_raster_moves_as_pillow(dtype: str) -> None:
    """Bytes as an RGB picture to the bit; 16 bits as the same picture in float."""
    pixels = values(3, dtype)
    raster = Raster.of(pixels)
    box = (1.5, 2.0, 28.25, 17.0)
    assert raster.size == (WIDE, HIGH)
    assert (raster.width, raster.height) == (WIDE, HIGH)
    moved = raster.resize((13, 9), Image.Resampling.BILINEAR, box).crop((-2, 1, 9, 9))
    moved = moved.transpose(Image.Transpose.ROTATE_90)
    if dtype == "uint8":
        plain = Image.fromarray(pixels).resize((13, 9), Image.Resampling.BILINEAR, box).crop((-2, 1, 9, 9))
        np.testing.assert_array_equal(np.asarray(moved), np.asarray(plain.transpose(Image.Transpose.ROTATE_90)))
    else:
        assert np.asarray(moved).dtype == np.float32
        assert np.asarray(moved).max() > 256
    assert pickle.loads(pickle.dumps(moved)) == moved
    assert moved.copy() == moved
    with pytest.raises(TypeError, match="no colours"):
        raster.convert("RGB")


def test_units_are_those_of_the_type_or_of_the_setting() -> None:
    deep = Raster.of(np.array([[[0, 4095, 65535]]], np.uint16))
    np.testing.assert_allclose(unit_pixels(deep)[0, 0], [0, 4095 / 65535, 1])
    np.testing.assert_allclose(unit_pixels(deep, 4095)[0, 0, :2], [0, 1])
    assert unit_pixels(RGB).dtype == np.uint8
    assert unit_pixels(Raster.of(values(5, "uint8"))).dtype == np.uint8
    np.testing.assert_allclose(unit_pixels(RGB, 100), values(3, "uint8") / np.float32(100), rtol=1e-6)


def test_two_values_of_the_same_upper_bits_stay_two() -> None:
    pixels = np.full((HIGH, WIDE, 4), 0x1200, np.uint16)
    pixels[:, WIDE // 2 :] = 0x12FF
    assert set(np.unique(np.asarray(read_picture(tiff(pixels), Bands(4))))) == {0x1200, 0x12FF}


# --- What people give in Python, and crops for training ---

GIVEN: dict[str, tuple[Any, Bands, Any]] = {
    "(H, W, 4) uint16": (values(4, "uint16"), Bands(4), values(4, "uint16")),
    "(4, H, W) float": (np.moveaxis(values(4, "float32"), -1, 0), Bands(4), values(4, "float32")),
    "(H, W) uint16": (values(1, "uint16")[..., 0], Bands(1), values(1, "uint16")),
    "RGBA of Pillow": (RGBA, Bands(4), RGBA),
    "16 bits of Pillow": (DEEP, Bands(1), np.asarray(DEEP)[..., None]),
    "bytes of TIFF": (tiff(values(4, "uint16")), Bands(4), values(4, "uint16")),
    "a file": (io.BytesIO(saved(values(4, "uint16"))), Bands(4), values(4, "uint16")),
    "a raster": (Raster.of(values(4, "uint16")), Bands(4), values(4, "uint16")),
    "a photograph": (RGB, Bands(3), RGB),
    "an array for RGB": (saved(np.asarray(RGB)), Bands(3), RGB),
    "TIFF for RGB": (tiff(np.asarray(RGB), photometric="rgb"), Bands(3), RGB),
    "32 bits of Pillow": (Image.fromarray(values(1, "int32")[..., 0]), Bands(1, 2**31), np.float32(values(1, "int32"))),
}


@pytest.mark.parametrize("case", GIVEN)
def test_pictures_in_memory(case: str) -> None:
    given, bands, wanted = GIVEN[case]
    np.testing.assert_array_equal(np.asarray(to_picture(given, bands)), np.asarray(wanted))


def test_what_is_no_picture_is_refused() -> None:
    for given in (7, None, [RGB]):
        with pytest.raises(ResnestError, match="expected a path"):
            to_picture(given, Bands(4))  # type: ignore[arg-type]
    with pytest.raises(BadImage, match=re.escape("has no pixels (0, 3, 4)")):
        to_picture(np.zeros((0, 3, 4), np.uint16), Bands(4))


def test_crops_for_training_are_of_the_same_pixels() -> None:
    def choose(width: int, height: int) -> tuple[int, int, int, int]:
        assert (width, height) == (WIDE, HIGH)
        return 1, 2, 11, 12

    for content, bands in ((tiff(values(4, "uint16")), Bands(4)), (png(GREY, "JPEG"), Bands(1)), (png(RGB), Bands(1))):
        image, box = read_for_crop(content, choose, bands, at_least=8)
        assert box == (1, 2, 11, 12)
        assert np.asarray(image).tobytes() == np.asarray(read_picture(content, bands)).tobytes()


# --- Pictures to look at, and what is found in folders ---


def test_what_is_shown() -> None:
    """Bytes as they are, other values stretched band by band; bands by their numbers."""
    np.testing.assert_array_equal(np.asarray(shown(Raster.of(values(4, "uint8")))), values(4, "uint8")[..., :3])
    deep = np.stack([np.linspace(0, top, HIGH * WIDE).reshape(HIGH, WIDE) for top in (600, 6000, 20000, 60000)], axis=2)
    seen = np.asarray(shown(Raster.of(deep.astype(np.uint16)), (4, 2, 1))).astype(int)
    assert (seen.min(), seen.max()) == (0, 255)
    assert np.abs(seen - seen[..., :1]).max() <= 2  # each has its own stretch
    grey = np.asarray(shown(Raster.of(deep.astype(np.float32)), (2,)))
    assert (grey[..., 0] == grey[..., 2]).all()
    assert np.asarray(shown(Raster.of(np.full((4, 4, 1), np.nan, np.float32)))).max() == 0
    assert shown(RGBA) == RGBA.convert("RGB")
    for bands in ((5,), (0, 1, 2), (1, 2)):
        with pytest.raises(ResnestError, match="expected one or three of the picture's, which are 1 to 4"):
            shown(Raster.of(values(4, "uint8")), bands)


@pytest.mark.parametrize(
    "given",
    [values(4, "uint16"), tiff(values(4, "uint16")), Raster.of(values(4, "uint16")), np.asarray(RGB), png(RGB), GREY],
    ids=["array", "TIFF", "raster", "RGB", "PNG", "grey"],
)
def test_whatever_is_predicted_can_be_drawn(given: Any) -> None:
    assert (drawable(given).mode, drawable(given).size) == ("RGB", (WIDE, HIGH))


def test_without_tifffile_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(BadImage, match=r"x: is a TIFF file that needs tifffile: `pip install 'resnest\[tiff\]'`"):
        read_picture(tiff(values(4, "uint16")), Bands(4), name="x")
    for content in (png(RGB, "TIFF"), png(DEEP, "TIFF")):  # which Pillow keeps whole
        assert read_picture(content).size == (WIDE, HIGH)


def _folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_folders_of_classes(tmp_path: Path) -> None:
    """TIFF are pictures beside others; arrays are where there is nothing else."""
    kinds = {".tif": tiff(values(3, "uint16"), photometric="rgb"), ".npy": saved(values(3, "uint8")), ".png": png(RGB)}
    cases: dict[str, tuple[tuple[str, ...], int]] = {"a": ((".npy",), 4), "b": ((".tif", ".png", ".npy"), 8)}
    for name, (suffixes, count) in cases.items():
        files = {f"{k}/{n}{end}": kinds[end] for k in ("cat", "dog") for n in range(2) for end in suffixes}
        whole = open_dataset(_folder(tmp_path / name, files)).unsplit
        assert whole is not None
        assert len(whole) == count
        assert all(whole.decode(index).size == (WIDE, HIGH) for index in range(count))
    assert "an array beside pictures" in open_dataset(tmp_path / "b").describe()


def test_a_file_of_bands_beside_a_photograph_of_its_name_is_none_of_its_own(tmp_path: Path) -> None:
    mask = png(Image.fromarray(np.zeros((HIGH, WIDE), np.uint8)))
    files = {f"images/{n}.jpg": png(RGB, "JPEG") for n in range(3)} | {f"masks/{n}.png": mask for n in range(4)}
    files |= {f"images/{n}.npy": saved(values(9, "float32")) for n in range(4)}
    _folder(tmp_path, {**files, "classes.txt": b"a\nb\n"})
    whole = open_dataset(tmp_path, task="segmentation", bands=Bands(9)).unsplit
    assert whole is not None
    assert list(whole.keys) == ["0.jpg", "1.jpg", "2.jpg", "3.npy"]
