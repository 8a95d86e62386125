"""Mapping the values of a mask file, numbers or colours, to classes.

    meaning = MaskMeaning({0: 0, 7: 1, (0, 0, 142): 2})
    meaning.read(content)                     # bytes of a PNG -> (H, W) uint8, 255 does not count

A mask with one channel or a palette holds numbers (palette indices), a mask with three channels colours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from resnest.runtime.decode import BadImage, decode_stored
from resnest.runtime.palette import Colour, decode_ids
from resnest.segmentation.spec import IGNORED

Value = int | Colour  # a number, or red, green, blue
Numbers = NDArray[np.int64]

STRANGE = -1  # marks a value without a class
PNG = b"\x89PNG\r\n\x1a\n"
DEPTH, KIND = 24, 25  # bytes of a PNG with the bits of a sample, and the kind of pixels: 0 is grey
SPREAD = {2: 85, 4: 17}  # Pillow spreads grey values of 2 and 4 bits over 0 to 255
MOST_TOLD = 5  # values in an error
TABLE = 256  # numbers that are looked up in a table


@dataclass(frozen=True)
class MaskMeaning:
    """The class of each value, or 255 if ignored; 255 itself need not be listed."""

    lookup: dict[Value, int]

    def read(self, content: bytes, name: str = "mask") -> NDArray[np.uint8]:
        """(H, W) classes.

        Raises:
            BadImage: no mask, or a value without a class.
        """
        values, coloured = stored_values(content, name)
        known = self._colours if coloured else self._numbers
        if coloured and not len(known[0]):
            raise BadImage(
                name,
                "is in colours, and the class list has none: save masks with one channel of class numbers, or give the"
                " classes their colours",
            )
        classes: NDArray[np.integer] = self._table[values] if values.dtype == np.uint8 else _search(values, *known)
        if (strange := classes == STRANGE).any():
            what = f"{_told(values[strange], coloured=coloured)}, which no class has"
            raise BadImage(name, f"{what}, in {strange.sum()} of {strange.size} pixels")
        return classes.astype(np.uint8)

    @cached_property
    def _numbers(self) -> tuple[Numbers, Numbers]:
        return _sorted({IGNORED: IGNORED} | {value: k for value, k in self.lookup.items() if isinstance(value, int)})

    @cached_property
    def _colours(self) -> tuple[Numbers, Numbers]:
        return _sorted({packed(value): k for value, k in self.lookup.items() if isinstance(value, tuple)})

    @cached_property
    def _table(self) -> NDArray[np.int16]:
        return _search(np.arange(TABLE), *self._numbers).astype(np.int16)


def stored_values(content: bytes, name: str = "mask") -> tuple[NDArray[np.integer], bool]:
    """The values of a mask, (H, W), and whether they are packed colours. Raises BadImage."""
    image = decode_stored(content, name=name)
    grey = content.startswith(PNG) and content[KIND] == 0
    step = SPREAD.get(content[DEPTH], 1) if grey else 1
    if image.mode in ("LA", "PA"):
        image = image.getchannel(0)
    if image.mode in ("RGB", "RGBA"):
        return decode_ids(np.asarray(image.convert("RGB"))), True
    pixels = np.asarray(image)
    if pixels.dtype.itemsize == 1:
        return pixels.astype(np.uint8) // step, False
    return pixels.astype(np.int64), False


def packed(colour: Colour) -> int:
    """Packed as for `decode_ids`."""
    red, green, blue = colour
    return red + 256 * green + 65536 * blue


def _told(values: NDArray[np.integer], *, coloured: bool) -> str:
    """Some values without a class."""
    some = np.unique(values).tolist()
    shown = [f"({one & 255}, {one >> 8 & 255}, {one >> 16})" if coloured else str(one) for one in some[:MOST_TOLD]]
    more = f" and {len(some) - MOST_TOLD} more" if len(some) > MOST_TOLD else ""
    return f"has the {'colour' if coloured else 'value'}{'s' * (len(some) > 1)} {', '.join(shown)}{more}"


def _sorted(known: dict[int, int]) -> tuple[Numbers, Numbers]:
    """Values in ascending order, and their classes."""
    values = sorted(known)
    return np.array(values, np.int64), np.array([known[value] for value in values], np.int64)


def _search(values: NDArray[np.integer], known: Numbers, classes: Numbers) -> Numbers:
    places = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.where(known[places] == values, classes[places], STRANGE)
