"""Pictures to look at: of any bands, three of them with a stretch, in 8-bit RGB.

    shown(raster, (3, 2, 1))                         # bands counted from 1, as red, green and blue
    drawable("scene.tif")                             # the same of whatever `resnest.Predictor` takes

Bytes are shown as they are. Of other values each band is stretched, so that 2 % of its pixels are black and 2 % white.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.errors import ResnestError
from resnest.runtime.band_files import channels_last
from resnest.runtime.bands import AS_IS, is_bands_file, read_picture
from resnest.runtime.decode import MAX_BYTES, read_content
from resnest.runtime.inputs import ImageInput, content_of, to_image
from resnest.runtime.raster import Raster

ENDS = (2, 98)  # percentiles that become black and white


def shown(image: Image.Image, bands: Sequence[int] = ()) -> Image.Image:
    """The picture in RGB.

    Args:
        bands: three, or one for grey, from 1; none: the first three, or the first of fewer.

    Raises:
        ResnestError: it has no such band.
    """
    if not isinstance(image, Raster):
        return image.convert("RGB")
    planes = [_bytes(np.asarray(band)) for band in chosen(image, bands).bands]
    return Image.fromarray(np.stack(planes * (3 // len(planes)), axis=-1))


def chosen(image: Raster, bands: Sequence[int] = ()) -> Raster:
    """One or three bands of it, in the units of its file. Raises as `shown`."""
    count = len(image.bands)
    numbers = tuple(bands) or ((1, 2, 3) if count >= 3 else (1,))
    if len(numbers) not in (1, 3) or not all(1 <= band <= count for band in numbers):
        given = ",".join(map(str, numbers))
        raise ResnestError(f"bands {given}: expected one or three of the picture's, which are 1 to {count}")
    return Raster([image.bands[band - 1] for band in numbers], image.kind)


def _bytes(plane: NDArray[Any]) -> NDArray[np.uint8]:
    """A band as bytes, (H, W)."""
    if plane.dtype == np.uint8:
        return np.asarray(plane, np.uint8)
    finite = plane[np.isfinite(plane)]
    low, high = np.percentile(finite, ENDS) if finite.size else (0.0, 1.0)
    units = (np.nan_to_num(plane, nan=low) - low) / (high - low if high > low else 1.0)
    return np.asarray(np.rint(units.clip(0, 1) * 255), np.uint8)


def drawable(source: ImageInput, bands: Sequence[int] = ()) -> Image.Image:
    """Whatever a predictor takes, as `shown`. Raises BadImage, WrongInput, and as `shown`."""
    if isinstance(source, Raster):
        return shown(source, bands)
    if isinstance(source, np.ndarray) and source.ndim in (2, 3):
        colours = source.dtype == np.uint8 and (source.ndim == 2 or source.shape[2] == 3)
        if not colours and source.size:
            return shown(Raster.of(channels_last(source, AS_IS.channels, "image")), bands)
    if isinstance(source, Image.Image | np.ndarray):
        return to_image(source)
    content = content_of(source, "image")
    name = str(content) if isinstance(content, Path) else "image"
    content = read_content(content, name, MAX_BYTES)
    return shown(read_picture(content, AS_IS, name=name), bands) if is_bands_file(content) else to_image(content, name)
