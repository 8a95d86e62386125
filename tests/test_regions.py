"""Regions of large pictures: TIFF pages read by their tiles and strips, and what is left to the usual reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnest.runtime import opening
from resnest.runtime.bands import Bands, read_picture
from resnest.runtime.decode import BadImage
from resnest.runtime.opening import Spilled, open_regions
from resnest.runtime.pages import RegionPages, TiffPages
from resnest.runtime.raster import Raster
from resnest.runtime.regions import Decoded, TiffPage, tiff_pages
from resnest.runtime.sources import open_source

tifffile = pytest.importorskip("tifffile")
PIXELS = np.random.default_rng(0).integers(0, 256, (150, 220, 3), np.uint8)
BOXES = [(0, 0, 220, 150), (10, 20, 90, 75), (200, 140, 220, 150), (63, 63, 65, 65)]


@pytest.mark.parametrize(
    "how",
    [{}, {"rowsperstrip": 16}, {"tile": (64, 64)}, {"tile": (32, 48), "compression": "zlib"}, {"compression": "zlib"}],
    ids=str,
)
@pytest.mark.parametrize("kind", ["rgb", "rgba", "minisblack", "miniswhite"])
def test_regions_of_a_tiff_file(how: dict[str, Any], kind: str, tmp_path: Path) -> None:
    pixels = {"rgb": PIXELS, "rgba": np.dstack([PIXELS, PIXELS[..., :1]])}.get(kind, PIXELS[..., 0])
    alpha = {"extrasamples": ["unassalpha"]} if kind == "rgba" else {}
    photometric = kind.removesuffix("a") if kind == "rgba" else kind
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric=photometric, **alpha, **how)
    [page] = tiff_pages(tmp_path / "x.tif")
    wanted = PIXELS if kind.startswith("rgb") else np.repeat(PIXELS[..., :1], 3, 2)
    wanted = 255 - wanted if kind == "miniswhite" else wanted
    for left, top, right, bottom in BOXES:
        assert np.array_equal(np.asarray(page.read((left, top, right, bottom))), wanted[top:bottom, left:right])
    page.close()


@pytest.mark.parametrize("how", [{}, {"rowsperstrip": 16}, {"tile": (64, 64), "compression": "zlib"}], ids=str)
@pytest.mark.parametrize(
    ("kind", "count", "bands"),
    [
        ("uint16", 4, Bands(4)),
        ("uint16", 1, Bands(1, 4095.0)),
        ("float32", 5, Bands(5, 100.0)),
        ("uint8", 4, Bands(4)),
        ("uint8", 3, Bands(1)),
        ("uint8", 3, Bands(3, 200.0)),
        (">u2", 2, Bands(2)),
    ],
)
def test_regions_of_bands(kind: str, count: int, bands: Bands, how: dict[str, Any], tmp_path: Path) -> None:
    """As of the whole picture, cropped."""
    pixels = np.random.default_rng(1).integers(0, 200, (150, 220, count)).astype(kind)
    form = {"photometric": "rgb" if count == 3 else "minisblack", "byteorder": ">" if kind[0] == ">" else "<"}
    tifffile.imwrite(tmp_path / "x.tif", pixels[..., 0] if count == 1 else pixels, planarconfig="contig", **form, **how)
    picture, whole = open_regions(tmp_path / "x.tif", bands=bands), read_picture(tmp_path / "x.tif", bands)
    assert isinstance(picture, TiffPage)
    for box in BOXES:
        part = picture.read(box)
        assert isinstance(part, Raster)
        assert part == whole.crop(box)
    picture.close()


def test_pages_that_are_bands_are_read_whole(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", np.stack([PIXELS[..., 0]] * 4), photometric="minisblack")
    assert isinstance(open_regions(tmp_path / "x.tif", bands=Bands(4)), Decoded)


@pytest.mark.parametrize("how", [{"compression": "tiff_lzw"}, {"tiffinfo": {274: 6}}], ids=str)
def test_what_is_not_read_by_regions_is_decoded(how: dict[str, Any], tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "x.tif", **how)
    assert tiff_pages(tmp_path / "x.tif") == []
    frames = open_source(tmp_path / "x.tif", regions=True)
    assert isinstance(frames, TiffPages)
    frames.close()


def test_pages_and_smaller_copies(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        file.write(PIXELS, photometric="rgb")
        file.write(PIXELS[::2, ::2], photometric="rgb", subfiletype=1)
        file.write(255 - PIXELS, photometric="rgb")
    frames = open_source(tmp_path / "x.tif", regions=True)
    assert isinstance(frames, RegionPages)
    assert [(frame.name, frame.number) for frame in frames] == [(f"{tmp_path / 'x.tif'}[{n}]", n) for n in (0, 2)]
    frames.close()


def test_a_truncated_file_names_its_page(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, PIXELS, photometric="rgb", rowsperstrip=16)
    path.write_bytes(path.read_bytes()[:-5000])
    [page] = tiff_pages(path)
    assert page.read((0, 0, 100, 50)).size == (100, 50)
    with pytest.raises(BadImage, match="damaged"):
        page.read((0, 100, 100, 150))
    page.close()


def test_a_picture_beyond_pillows_own_limit(tmp_path: Path) -> None:
    """Pillow refuses twice its 89 megapixels; tiles take up to 500."""
    path = tmp_path / "x.png"
    Image.new("1", (20_000, 10_000)).save(path)
    assert open_regions(path).read((0, 0, 10, 10)).size == (10, 10)


@pytest.mark.parametrize("full", [False, True])
def test_a_large_picture_moves_to_a_temporary_file(full: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or stays in memory if the disk is full; smaller ones stay anyway."""
    path = tmp_path / "x.png"
    Image.fromarray(PIXELS).save(path)
    assert isinstance(open_regions(path, spill=True), Decoded)
    monkeypatch.setattr(opening, "LARGE", 1000)
    if full:
        monkeypatch.setattr(opening.tempfile, "TemporaryFile", lambda **_: open("/dev/full", "wb"))  # noqa: SIM115
    picture = open_regions(path, spill=True)
    assert isinstance(picture, Decoded if full else Spilled)
    for box in BOXES:
        assert np.array_equal(np.asarray(picture.read(box)), PIXELS[box[1] : box[3], box[0] : box[2]])
    picture.close()
