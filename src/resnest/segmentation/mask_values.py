"""The values of a mask file, numbers or colours, and the class of each.

    stored = read_stored(content)                # StoredMask: values, whether they are colours, the palette
    listed.meaning.read(content)                 # (H, W) uint8, 255 does not count

Files are PNG, BMP, GIF, or TIFF of integers. A mask with one channel or a palette holds numbers (palette indices), a
mask with three channels colours; if the list of classes has no colours, three equal channels are a number. Where the
class list has the colours of a palette, they decide and not its numbers. GIFs hold greys or colours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.runtime.band_files import read_tiff, tiff_size
from resnest.runtime.decode import BadImage, decode_stored, png_samples
from resnest.runtime.palette import Colour, decode_ids
from resnest.runtime.raster import Raster
from resnest.runtime.tiff import STARTS as TIFF
from resnest.segmentation.card import IGNORED

Value = int | Colour  # a number, or red, green, blue
Numbers = NDArray[np.int64]

STRANGE = -1  # marks a value without a class
SPREAD = {2: 85, 4: 17}  # Pillow spreads grey values of 2 and 4 bits over 0 to 255
MAX_SHOWN = 5  # values in an error
TABLE = 256  # numbers that are looked up in a table
EXACT_FLOAT = 2**24  # a Raster's float32 has all whole numbers below
KNOWN = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I", "I;16")  # modes whose values are numbers or colours
LOSSY = ("jpeg", "tiff_jpeg", "webp")  # what Pillow calls them
GREY = 1 + 256 + 65536  # packed colour of a grey, divided by its value
NO_COLOURS = (
    "is in colours, and the class list has none: save masks with one channel of class numbers, or give the classes"
    " their colours"
)
RAMP = np.arange(TABLE) * GREY  # packed colours of all greys


@dataclass(frozen=True)
class StoredMask:
    """The values of a mask file."""

    values: NDArray[np.integer]  # (H, W)
    coloured: bool  # values are packed colours
    palette: Numbers | None = None  # packed colour of each number; none, too, where it says nothing: shades of grey

    @cached_property
    def present(self) -> Numbers:
        """The values that it has, in ascending order."""
        if self.values.dtype == np.uint8:
            return np.flatnonzero(np.bincount(self.values.reshape(-1), minlength=TABLE)).astype(np.int64)
        return np.unique(self.values).astype(np.int64)

    @cached_property
    def numbered(self) -> StoredMask:
        """The numbers of a mask whose three channels are equal everywhere, for lists without colours; else itself."""
        if not self.coloured or (self.values != self.values % TABLE * GREY).any():
            return self
        return StoredMask((self.values % TABLE).astype(np.uint8), False)


@dataclass(frozen=True)
class MaskMeaning:
    """The class of each value, or 255 if ignored; 255 itself need not be listed."""

    lookup: dict[Value, int]
    names: tuple[str, ...] = ()  # of the classes, for errors
    # why 255 is doubtful in a mask without the number `partner`: it may be that class, or not count
    doubt: str = ""
    partner: int = 1
    hint: str = ""  # ends the message on an unknown number
    in_colours: bool = False  # other masks of the part have colours: a grey is a colour, if the list has it

    def read(self, content: bytes, name: str = "mask") -> NDArray[np.uint8]:
        """(H, W) classes.

        Raises:
            BadImage: no mask, a value without a class, or a palette that contradicts the classes.
        """
        return self.classes_of(read_stored(content, name), name)

    def classes_of(self, stored: StoredMask, name: str = "mask") -> NDArray[np.uint8]:
        """The same of a mask that was read. Raises BadImage."""
        stored = stored if self.has_colours else stored.numbered
        values, coloured = stored.values, stored.coloured
        if coloured and not self.has_colours:
            raise BadImage(name, NO_COLOURS)
        if table := self.by_palette(stored, name):
            classes: NDArray[np.integer] = _search(values, *table)
        else:
            self._check_ignored(stored, name)
            known = self._colours if coloured else self._numbers
            classes = self._table[values] if values.dtype == np.uint8 else _search(values, *known)
        if (strange := classes == STRANGE).any():
            what = f"{describe_unknown(values[strange], coloured=coloured)}, which no class has"
            hint = f"; {self.hint}" if self.hint and not coloured else ""
            raise BadImage(name, f"{what}, in {strange.sum()} of {strange.size} pixels{hint}")
        return classes.astype(np.uint8)

    def renamed(self, lookup: dict[Value, int], names: tuple[str, ...]) -> MaskMeaning:
        """The same with other numbers of classes."""
        return replace(self, lookup=lookup, names=names)

    @property
    def has_colours(self) -> bool:
        """Whether any class has a colour."""
        return bool(len(self._colours[0]))

    @property
    def by_value(self) -> bool:
        """Whether the class of a pixel depends on its own value alone, and not on the rest of the mask."""
        return not self.has_colours and not self.doubt

    def by_palette(self, stored: StoredMask, name: str) -> tuple[Numbers, Numbers] | None:
        """The numbers of a palette and their classes by its colours, if these differ from those by number.

        Raises:
            BadImage: some colours are those of other classes than their numbers, and some of none.
        """
        palette = RAMP if stored.palette is None and self.in_colours else stored.palette
        if palette is None or not self.has_colours or stored.coloured or stored.values.dtype != np.uint8:
            return None
        every = np.arange(len(palette))
        labels = _search(palette, *self._colours)
        if not ((labels != STRANGE) & (labels != _search(every, *self._numbers))).any():
            return None
        present = stored.present
        by_number, by_colour = _search(present, *self._numbers), _search(palette[present], *self._colours)
        # 255 may be the border, whatever its colour
        by_colour = np.where((present == IGNORED) & (by_colour == STRANGE), by_number, by_colour)
        other = (by_colour != STRANGE) & (by_colour != by_number)
        if not other.any():
            return None
        if (by_colour != STRANGE).all():
            return present, by_colour
        at, strange = int(np.argmax(other)), int(np.argmax(by_colour == STRANGE))
        colours = [_colour_text(int(palette[present[k]])) for k in (at, strange)]
        raise BadImage(
            name,
            f"its palette contradicts the class list: number {present[at]} has the colour {colours[0]} of"
            f" {self._name(int(by_colour[at]))}, and is {self._name(int(by_number[at]))} by the list, which lacks the"
            f" colour {colours[1]} of number {present[strange]}. List every colour, or none",
        )

    def _name(self, label: int) -> str:
        if label == STRANGE:
            return "no class"
        return repr(self.names[label]) if label < len(self.names) else "a class that does not count"

    def _check_ignored(self, stored: StoredMask, name: str) -> None:
        """Raises BadImage where 255 may be a class that lacks its number."""
        doubtful = self.doubt and not stored.coloured and (stored.values == IGNORED).any()
        if doubtful and not (stored.values == self.partner).any():
            raise BadImage(name, f"has the value 255 and not {self.partner}: {self.doubt}")

    @cached_property
    def _numbers(self) -> tuple[Numbers, Numbers]:
        return _sorted({IGNORED: IGNORED} | {value: k for value, k in self.lookup.items() if isinstance(value, int)})

    @cached_property
    def _colours(self) -> tuple[Numbers, Numbers]:
        return _sorted({packed(value): k for value, k in self.lookup.items() if isinstance(value, tuple)})

    @cached_property
    def _table(self) -> NDArray[np.int16]:
        return _search(np.arange(TABLE), *self._numbers).astype(np.int16)


def read_stored(content: bytes, name: str = "mask") -> StoredMask:
    """The values of a mask.

    Raises:
        BadImage: no mask; its classes seem to be in its alpha channel, which is not read.
    """
    if content.startswith(TIFF):
        return read_tiff_mask(content, name)
    image = decode_stored(content, name=name)
    bits, grey = png_samples(content)
    step = SPREAD.get(bits, 1) if grey else 1
    palette = _palette(image) if image.mode in ("P", "PA", "1") else None
    if image.format == "GIF" and palette is not None:
        return _of_gif(image, palette)
    return _of_image(image, name, step, palette)


def _of_image(image: Image.Image, name: str, step: int = 1, palette: Numbers | None = None) -> StoredMask:
    """The numbers or colours of a decoded mask; greys divided by `step`."""
    if image.mode in ("LA", "PA", "RGBA"):
        _check_alpha(image, name)
        image = image.convert("RGB") if image.mode == "RGBA" else image.getchannel(0)
    if image.mode == "RGB":
        return StoredMask(decode_ids(np.asarray(image)), True)
    pixels = np.asarray(image)
    if pixels.dtype.itemsize == 1:
        return StoredMask(pixels.astype(np.uint8) // step, False, palette)
    return StoredMask(pixels.astype(np.int64), False, palette)


def read_tiff_mask(content: bytes, name: str) -> StoredMask:
    """The values of a mask in a TIFF file, whichever of black and white is 0. Raises BadImage."""
    image, _ = read_tiff(content, name, numbers=True)
    if image.info.get("compression") in LOSSY:
        raise BadImage(name, "is a TIFF file compressed as JPEG, which is lossy: save it with deflate or LZW")
    kind = image.kind if isinstance(image, Raster) else image.mode
    if kind.startswith("float") or kind == "F":
        raise BadImage(name, "has float values: save class numbers as integers")
    if not isinstance(image, Raster):
        palette = _palette(image) if image.mode in ("P", "PA", "1") else None
        return _of_image(image if image.mode in KNOWN else image.convert("RGB"), name, 1, palette)
    bands = [np.asarray(band) for band in image.bands]
    if len(bands) == 1 and abs(bands[0]).max() >= EXACT_FLOAT:
        raise BadImage(name, f"has {kind} values of {EXACT_FLOAT:,} and more: number the classes from 0")
    if len(bands) == 1:
        return StoredMask(bands[0].astype(np.uint8 if kind == "uint8" else np.int64), False)
    if kind == "uint8" and len(bands) in (3, 4):
        return _of_image(Image.fromarray(np.stack(bands, -1)), name)
    raise BadImage(name, f"has {len(bands)} bands of {kind}: a mask has one, of class numbers, or colours of 8 bits")


def mask_size(content: bytes) -> tuple[int, int]:
    """Width and height of a mask, from its header. Raises BadImage."""
    return tiff_size(content, "mask") if content.startswith(TIFF) else decode_stored(content, pixels=False).size


def _of_gif(image: Image.Image, palette: Numbers) -> StoredMask:
    """The greys of a GIF with a palette, or its colours: programs number palettes of GIFs anew (so Pillow does)."""
    colours: Numbers = palette[np.asarray(image)]
    if (colours == colours % 256 * GREY).all():
        return StoredMask((colours % 256).astype(np.uint8), False)
    return StoredMask(colours, True)


def _palette(image: Image.Image) -> Numbers | None:
    """(256,) packed colours; none of a palette whose number k is the k-th grey."""
    parts = [0, 0, 0, 255, 255, 255] if image.mode == "1" else image.getpalette()
    flat = np.array(parts or [], np.int64).reshape(-1, 3)
    colours = np.full(TABLE, STRANGE, np.int64)
    colours[: len(flat)] = flat @ np.array([1, 256, 65536])
    return None if (colours[: len(flat)] == RAMP[: len(flat)]).all() else colours


def _check_alpha(image: Image.Image, name: str) -> None:
    pixels = np.asarray(image)  # (H, W, C), the last is alpha
    varies = (pixels != pixels[0, 0]).any((0, 1))
    if varies[-1] and not varies[:-1].any():
        raise BadImage(
            name,
            "has one value everywhere and an alpha channel that varies: its classes seem to be in that channel, which"
            " is not read. Save masks without transparency",
        )


def packed(colour: Colour) -> int:
    """Packed as for `decode_ids`."""
    red, green, blue = colour
    return red + 256 * green + 65536 * blue


def _colour_text(code: int) -> str:
    return f"({code & 255}, {code >> 8 & 255}, {code >> 16})" if code >= 0 else "that it lacks"


def describe_unknown(values: NDArray[np.integer], *, coloured: bool) -> str:
    """Some values without a class."""
    some = np.unique(values).tolist()
    shown = [_colour_text(code) if coloured else str(code) for code in some[:MAX_SHOWN]]
    more = f" and {len(some) - MAX_SHOWN} more" if len(some) > MAX_SHOWN else ""
    return f"has the {'colour' if coloured else 'value'}{'s' * (len(some) > 1)} {', '.join(shown)}{more}"


def _sorted(known: dict[int, int]) -> tuple[Numbers, Numbers]:
    """Values in ascending order, and their classes."""
    values = sorted(known)
    return np.array(values, np.int64), np.array([known[value] for value in values], np.int64)


def _search(values: NDArray[np.integer], known: Numbers, classes: Numbers) -> Numbers:
    index = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.where(known[index] == values, classes[index], STRANGE)
