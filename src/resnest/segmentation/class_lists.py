"""Class lists of data sets with masks: names, values and colours, in their usual file formats.

    found = read_class_list([Path("camvid")])
    found.classes, found.meaning             # names, values and colours; classes of mask values

`classes.json` is read as for labelled images; its rows may have "color" and "ignore". Text files have one class per
line, in the order of their values or with the value first (`4 Sky`), optionally with a colour before or after
(`Sky 128 128 128`, CVAT's `sky:128,128,128::`). CSV files have a first line with `name`, `r`, `g`, `b`, or Roboflow's
`Pixel Value`, `Class`.

Classes that a list marks to be ignored are ignored; if it marks none, so are those called void, ignore, unlabelled or
unlabeled.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.data.class_names import class_rows
from resnest.errors import ResnestError
from resnest.runtime.decode import BadImage, decode_stored
from resnest.runtime.palette import Colour, decode_ids
from resnest.segmentation.card import IGNORED
from resnest.segmentation.result import PixelClasses

# --- Mapping the values of a mask file, numbers or colours, to classes ---
# A mask with one channel or a palette holds numbers (palette indices), a mask with three channels colours.

Value = int | Colour  # a number, or red, green, blue
Numbers = NDArray[np.int64]

STRANGE = -1  # marks a value without a class
PNG = b"\x89PNG\r\n\x1a\n"
DEPTH, KIND = 24, 25  # bytes of a PNG with the bits of a sample, and the kind of pixels: 0 is grey
SPREAD = {2: 85, 4: 17}  # Pillow spreads grey values of 2 and 4 bits over 0 to 255
MAX_SHOWN = 5  # values in an error
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
            what = f"{_describe_unknown(values[strange], coloured=coloured)}, which no class has"
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


def _describe_unknown(values: NDArray[np.integer], *, coloured: bool) -> str:
    """Some values without a class."""
    some = np.unique(values).tolist()
    shown = [f"({code & 255}, {code >> 8 & 255}, {code >> 16})" if coloured else str(code) for code in some[:MAX_SHOWN]]
    more = f" and {len(some) - MAX_SHOWN} more" if len(some) > MAX_SHOWN else ""
    return f"has the {'colour' if coloured else 'value'}{'s' * (len(some) > 1)} {', '.join(shown)}{more}"


def _sorted(known: dict[int, int]) -> tuple[Numbers, Numbers]:
    """Values in ascending order, and their classes."""
    values = sorted(known)
    return np.array(values, np.int64), np.array([known[value] for value in values], np.int64)


def _search(values: NDArray[np.integer], known: Numbers, classes: Numbers) -> Numbers:
    index = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.where(known[index] == values, classes[index], STRANGE)


UNCOUNTED = ("void", "ignore", "unlabelled", "unlabeled")
VALUES = 2**31  # that a mask's pixel can have
COLOUR = r"(?P<r>\d{1,3})[\s,]+(?P<g>\d{1,3})[\s,]+(?P<b>\d{1,3})"
COLOUR_LAST = re.compile(rf"(?P<name>.*?\S)\s*[\s,:;]\s*{COLOUR}[\s:]*")
COLOUR_FIRST = re.compile(rf"{COLOUR}[\s,:;]+(?P<name>\S.*)")
NUMBERED = re.compile(r"(\d+)[\s,:;.]+(\S.*)")


@dataclass(frozen=True)
class Row:
    """A row of a class list."""

    value: int
    name: str
    colour: Colour | None = None
    ignore: bool = False


@dataclass(frozen=True)
class ClassList:
    """Evaluated classes in order, and ignored ones."""

    rows: tuple[Row, ...]
    ignored: tuple[Row, ...] = ()

    @classmethod
    def from_rows(cls, rows: Sequence[Row], where: str | Path) -> ClassList:
        """Raises ResnestError for ambiguous or too many classes."""
        counted = tuple(row for row in rows if not row.ignore)
        for what in ("value", "name", "colour"):
            seen: dict[Any, Row] = {}
            for row in rows:
                key = getattr(row, what)
                before = seen.setdefault(key, row) if key is not None else row
                if before is not row and not (row.ignore and before.ignore):
                    raise ResnestError(f"{where}: {before.name!r} and {row.name!r} have the same {what}: {key}")
        if not counted:
            raise ResnestError(f"{where} lists no class that is not ignored")
        if len(counted) > IGNORED:
            raise ResnestError(f"{where} lists {len(counted)} classes: {IGNORED} at most")
        return cls(counted, tuple(row for row in rows if row.ignore))

    @property
    def classes(self) -> PixelClasses:
        """The classes that are not ignored."""
        names = tuple(row.name for row in self.rows)
        colours = tuple(row.colour for row in self.rows if row.colour is not None)
        complete = len(colours) == len(self.rows)
        return PixelClasses(names, tuple(row.value for row in self.rows), colours if complete else ())

    @property
    def meaning(self) -> MaskMeaning:
        """The class of each mask value or colour."""
        lookup: dict[Value, int] = {}
        for rows, classes in ((self.ignored, [IGNORED] * len(self.ignored)), (self.rows, range(len(self.rows)))):
            for row, number in zip(rows, classes, strict=True):
                lookup[row.value] = number
                if row.colour is not None:
                    lookup[row.colour] = number
        return MaskMeaning(lookup)


def read_class_list(folders: Sequence[Path]) -> ClassList:
    """The first list in some folders. Raises ResnestError: none, or an invalid one."""
    if (classes := find_class_list(folders)) is None:
        raise ResnestError(
            f"{folders[0]} has masks and no list of their classes: write classes.txt there, with a name a line in the"
            " order of the masks' values from 0, or classes.json with rows of index, name, color and ignore"
        )
    return classes


def find_class_list(folders: Sequence[Path]) -> ClassList | None:
    """The same; None if there is none. Raises ResnestError for an invalid one."""
    paths = ((folder / name, read) for folder in folders for name, read in READERS.items())
    return next((_read(path, read) for path, read in paths if path.is_file()), None)


def _read(path: Path, read: Callable[[str], list[Row]]) -> ClassList:
    try:
        rows = read(path.read_text(encoding="utf-8-sig"))
    except ResnestError as error:
        raise ResnestError(f"{path}: {error}") from None
    except OSError as error:
        raise ResnestError(f"{path} cannot be read ({error.strerror or error})") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ResnestError(f"{path} is no list of classes ({error})") from None
    return ClassList.from_rows(rows, path)


def _from_json(text: str) -> list[Row]:
    return [_row_of(item, index) for index, item in enumerate(class_rows(text))]


def _row_of(item: dict[str, Any], index: int) -> Row:
    value = item.get("index", index)
    if not str(value).removeprefix("-").isdigit():
        raise ResnestError(f"row {index}: {json.dumps(value)[:60]} is no integer")
    colour = next((item[key] for key in ("color", "colour") if item.get(key) is not None), None)
    return _row(int(value), item["name"], colour, item.get("ignore"))


def _row(value: int, name: Any, colour: Any = None, ignore: bool | None = None) -> Row:
    """Raises ResnestError for an invalid colour."""
    name = str(name).strip()
    if not name:
        raise ResnestError(f"the class of value {value} has no name")
    if not 0 <= value < VALUES:
        raise ResnestError(f"class {name!r} has the value {value}: those of masks are 0 to {VALUES - 1}")
    if colour is not None:
        good = isinstance(colour, (list, tuple)) and len(colour) == 3
        if not good or not all(type(part) is int and 0 <= part <= 255 for part in colour):
            raise ResnestError(f"class {name!r}: its colour {colour} is not three numbers of 0 to 255")
        colour = (colour[0], colour[1], colour[2])
    return Row(value, name, colour, name.lower() in UNCOUNTED if ignore is None else bool(ignore))


def _from_text(text: str) -> list[Row]:
    lines = [line for raw in text.splitlines() if (line := raw.strip()) and not line.startswith("#")]
    coloured = [COLOUR_FIRST.fullmatch(line) or COLOUR_LAST.fullmatch(line) for line in lines]
    names = [match["name"] if match else line.rstrip(":") for match, line in zip(coloured, lines, strict=True)]
    numbered = [match.groups() for name in names if (match := NUMBERED.fullmatch(name))]
    if len(numbered) < len(names):
        numbered = [(str(index), name) for index, name in enumerate(names)]
    return [
        _row(int(value), name, [int(match[part]) for part in "rgb"] if match else None)
        for (value, name), match in zip(numbered, coloured, strict=True)
    ]


def _from_csv(text: str) -> list[Row]:
    table = csv.DictReader(text.splitlines(), skipinitialspace=True)
    columns = {name.strip().lower(): name for name in table.fieldnames or () if name}
    named = next((columns[key] for key in ("name", "class") if key in columns), None)
    if named is None:
        raise ResnestError(f"expected a first line with name, r, g, b; it has {', '.join(columns) or 'none'}")
    valued = next((columns[key] for key in ("pixel value", "value", "index", "id") if key in columns), None)
    coloured = [columns[key] for key in "rgb" if key in columns]
    return [
        _row(
            int(row[valued]) if valued else index,
            row[named],
            [int(row[key]) for key in coloured] if len(coloured) == 3 else None,
        )
        for index, row in enumerate(table)
    ]


READERS: dict[str, Callable[[str], list[Row]]] = {
    "classes.json": _from_json,
    "classes.txt": _from_text,
    "labelmap.txt": _from_text,  # CVAT
    "label_colors.txt": _from_text,  # CamVid's own
    "class_dict.csv": _from_csv,
    "_classes.csv": _from_csv,  # Roboflow
}
