"""Pictures of any number of bands, as 8-bit, 16-bit or float values, that act as Pillow images where these are moved.

    raster = Raster.of(np.zeros((64, 80, 4), np.uint16))
    np.asarray(raster.resize((40, 32))).shape               # (32, 40, 4) float32, in the units of the file
    unit_pixels(raster, value_range=4095)                    # the same, where 4095 has become 1.0

Each band is a Pillow image of mode L (bytes) or F (all else: a float32 keeps every 16-bit value), so sizes, crops,
flips and Pillow's antialiased resizing are what they are for photographs, band by band; alpha is a band as any other.
What has to do with colours raises an error: see `shown` for a picture to look at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Never, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Sides = tuple[float, float, float, float]  # left, top, right, bottom
MODE = "BANDS"  # of no Pillow image
# The value that is 1.0 before mean and std, by a file's data type, for those that have a usual one
FULL = {"uint8": 255.0, "uint16": 65535.0, "float16": 1.0, "float32": 1.0, "float64": 1.0}


class Raster(Image.Image):
    """Bands of one size.

    Args:
        bands: Pillow images of mode L, or of mode F.
        kind: the data type of the file's values, such as "uint16".
        colours: what the bands are, where the file tells: "RGB", "RGBA" or "LA"; else "".
    """

    def __init__(self, bands: Sequence[Image.Image], kind: str, colours: str = "") -> None:
        super().__init__()
        self.bands, self.kind, self.colours = tuple(bands), kind, colours
        self._size, self._mode = self.bands[0].size, MODE

    @classmethod
    def of(cls, pixels: NDArray[Any], kind: str = "") -> Raster:
        """From (H, W, C) or (H, W) of bytes or other numbers.

        Args:
            kind: the data type of the file, where the array has another one.
        """
        planes = np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else pixels[None]
        kept = np.uint8 if pixels.dtype == np.uint8 else np.float32
        bands = [Image.fromarray(np.ascontiguousarray(plane, kept)) for plane in planes]
        return cls(bands, kind or str(pixels.dtype))

    @property
    def full(self) -> float | None:
        """The value that counts as 1.0 by the data type; None of types that have no usual one."""
        return FULL.get(self.kind)

    def getbands(self) -> tuple[str, ...]:
        """Names of the bands, from "1"."""
        return tuple(str(number) for number, _ in enumerate(self.bands, start=1))

    # --- what moves pixels: as Pillow does with each band ---

    def _each(self, move: Callable[[Image.Image], Image.Image]) -> Self:
        return type(self)([move(band) for band in self.bands], self.kind, self.colours)

    def resize(
        self,
        size: Sequence[int] | NDArray[Any],
        resample: int | None = None,
        box: Sides | None = None,
        reducing_gap: float | None = None,
    ) -> Self:
        return self._each(lambda band: band.resize(tuple(size), resample, box, reducing_gap))

    def reduce(self, factor: int | tuple[int, int], box: tuple[int, int, int, int] | None = None) -> Self:
        return self._each(lambda band: band.reduce(factor, box))

    def crop(self, box: Sides | None = None) -> Self:
        return self._each(lambda band: band.crop(box))

    def transpose(self, method: Image.Transpose) -> Self:
        return self._each(lambda band: band.transpose(method))

    def transform(self, size: tuple[int, int], *how: Any, **more: Any) -> Self:
        return self._each(lambda band: band.transform(size, *how, **more))

    def copy(self) -> Self:
        return self._each(lambda band: band.copy())

    def load(self) -> None:
        """Nothing: the values are there."""

    # --- values ---

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """(H, W, C) uint8 or float32, for `np.asarray`."""
        pixels = np.stack([np.asarray(band) for band in self.bands], axis=-1)
        return {"shape": pixels.shape, "typestr": pixels.dtype.str, "version": 3, "data": pixels.tobytes()}

    def tobytes(self, encoder_name: str = "raw", *args: Any) -> bytes:
        """The values in the order (H, W, C)."""
        return np.asarray(self).tobytes()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Raster):
            return False
        return self.kind == other.kind and self.bands == other.bands

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type[Self], tuple[tuple[Image.Image, ...], str, str]]:
        return type(self), (self.bands, self.kind, self.colours)  # so that it crosses from a worker process

    def __repr__(self) -> str:
        return f"<Raster {self.width}x{self.height}, {len(self.bands)} bands of {self.kind}>"

    def convert(self, *_: object, **__: object) -> Never:
        """Raises TypeError: bands have no colours."""
        raise TypeError(f"{self!r} has no colours: `shown` chooses bands and a stretch")


def unit_pixels(image: Image.Image, value_range: float | None = None) -> NDArray[Any]:
    """The values of a picture, (H, W, C): uint8 of 0 to 255 where they are bytes, else float32 of 0 to 1.

    Args:
        value_range: the value that becomes 1.0; None: by the data type.
    """
    pixels: NDArray[Any] = np.asarray(image)
    full = (image.full if isinstance(image, Raster) else 255.0) if value_range is None else value_range
    assert full is not None  # `Bands` refuses such pictures
    if pixels.dtype == np.uint8 and full == 255:
        return pixels
    return pixels * np.float32(1 / full)
