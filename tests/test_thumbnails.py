"""Large pictures made small for drawings: the same picture, whatever is read of its file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image

from resnest.errors import ResnestError
from resnest.runtime import results
from resnest.runtime.decode import BadImage
from resnest.runtime.opening import open_regions
from resnest.runtime.shown import drawable
from resnest.runtime.thumbnails import small, thumbnail
from resnest.segmentation.result import LabelMap, PixelClasses

WIDTH, HEIGHT = 230, 150
TILED: dict[str, Any] = {"tile": (32, 32), "photometric": "minisblack", "compression": "zlib"}


def smooth(count: int, most: int, kind: str) -> NDArray[Any]:
    """(H, W, C): each band another slope, so that no two are one, nor one another turned."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    planes = [(x * (k + 1) + y * (count - k)) / ((k + 1) * WIDTH + (count - k) * HEIGHT) for k in range(count)]
    return np.asarray((np.stack(planes, -1) * most).astype(kind))


def photo(path: Path, orientation: int = 1) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(smooth(3, 255, "uint8")).save(path, exif=exif, quality=95)


def scene(count: int, kind: str, **how: Any) -> Callable[[Path], None]:
    most = {"uint8": 255, "uint16": 4000, "float32": 1}[kind]
    values = smooth(count, most, kind)
    values = values[..., 0] if count == 1 else values
    planes = {} if count == 1 else {"planarconfig": "contig"}
    return lambda path: tifffile.imwrite(path, values, **{**TILED, **planes, **how})


CASES: dict[str, tuple[str, Callable[[Path], None], tuple[int, ...]]] = {
    "JPEG": ("x.jpg", photo, ()),
    **{f"JPEG, orientation {number}": ("x.jpg", lambda path, n=number: photo(path, n), ()) for number in (3, 6, 8)},
    "PNG": ("x.png", lambda path: Image.fromarray(smooth(3, 255, "uint8")).save(path), ()),
    "grey PNG of 16 bits": ("x.png", lambda path: Image.fromarray(smooth(1, 65535, "uint16")[..., 0]).save(path), ()),
    "grey TIFF": ("x.tif", scene(1, "uint8"), ()),
    "grey TIFF of 16 bits": ("x.tif", scene(1, "uint16"), ()),
    "white is 0": ("x.tif", scene(1, "uint16", photometric="miniswhite"), ()),
    "TIFF in strips": ("x.tif", scene(1, "uint16", tile=None, rowsperstrip=7), ()),
    "RGB TIFF": ("x.tif", scene(3, "uint8", photometric="rgb"), ()),
    "RGB TIFF, its bands chosen": ("x.tif", scene(3, "uint8", photometric="rgb"), (3, 2, 1)),
    "four bands": ("x.tif", scene(4, "uint16"), ()),
    "four bands, three chosen": ("x.tif", scene(4, "uint16"), (4, 3, 1)),
    "floats, one chosen": ("x.tif", scene(4, "float32"), (2,)),
    "planes, which are decoded whole": ("x.tif", scene(4, "uint16", planarconfig="separate", photometric="rgb"), (4,)),
    "NumPy's": ("x.npy", lambda path: np.save(path, smooth(5, 4000, "uint16")), (5, 1, 2)),
}


@pytest.mark.parametrize("most", [400, 100, 25])
@pytest.mark.parametrize("case", CASES)
def test_a_thumbnail_is_the_picture_made_small(case: str, most: int, tmp_path: Path) -> None:
    name, write, bands = CASES[case]
    if case.startswith("planes"):
        values = np.moveaxis(smooth(4, 4000, "uint16"), -1, 0)
        tifffile.imwrite(tmp_path / name, values, photometric="minisblack", planarconfig="separate")
    else:
        write(tmp_path / name)
    whole = drawable(tmp_path / name, bands)
    found, size = thumbnail(tmp_path / name, most, bands)
    assert (size, found.mode) == (whole.size, "RGB")
    factor = max(1, -(-WIDTH // most))
    expected = whole.reduce(factor)
    assert found.size == expected.size
    apart = np.abs(np.asarray(found, np.int16) - np.asarray(expected, np.int16))
    assert np.median(apart) <= 3, "by the stretch alone, which is of the small picture"
    assert apart.max() <= 40  # at the ends of a stretch, and at a JPEG's last blocks


def test_what_is_in_memory_is_made_small(tmp_path: Path) -> None:
    pixels = smooth(4, 4000, "uint16")
    assert thumbnail(pixels, 100, (2,))[0].size == (77, 50)
    photo(tmp_path / "x.jpg")
    assert small(open_regions(tmp_path / "x.jpg"), 100).size == thumbnail(tmp_path / "x.jpg", 100)[0].size
    assert thumbnail((tmp_path / "x.jpg").read_bytes(), 100)[1] == (WIDTH, HEIGHT)


@pytest.mark.parametrize("name", ["x.tif", "x.jpg"])
def test_large_results_are_drawn_into_bands(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of photographs, in a small picture."""
    monkeypatch.setattr(results, "MAX_PIXELS", WIDTH * HEIGHT - 1)
    monkeypatch.setattr(results, "DRAWN", 100)
    scene(4, "uint16")(tmp_path / "x.tif")
    photo(tmp_path / "x.jpg")
    classes = PixelClasses(("land", "water"), (1, 2))
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[:, WIDTH // 2 :] = 1
    result = LabelMap(str(tmp_path / name), classes, labels, np.ones(2, np.float32))
    assert result.draw(tmp_path / name).width % -(-WIDTH // 3) == 0  # enlarged from a third of the size
    result.save(tmp_path / "drawn.png", tmp_path / name, bands=() if name == "x.jpg" else (4, 3, 2))
    with pytest.raises(ResnestError, match="the picture has 230 x 150 pixels, and the result is of one with 150 x 230"):
        LabelMap("y", classes, labels.T, np.ones(2, np.float32)).draw(tmp_path / name)


def test_bands_that_are_not_there(tmp_path: Path) -> None:
    scene(4, "uint16")(tmp_path / "x.tif")
    with pytest.raises(ResnestError, match="bands 5: expected one or three of the picture's, which are 1 to 4"):
        thumbnail(tmp_path / "x.tif", 100, (5,))
    (tmp_path / "x.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(BadImage):
        thumbnail(tmp_path / "x.jpg", 100)
