"""Class lists of data sets with masks: names, values and colours, in their usual file formats.

    found = read_class_list([Path("camvid")])
    found.classes, found.meaning             # names, values and colours; classes of mask values

`classes.json` is read as for labelled images; its rows may have "color" and "ignore". Text files have one class per
line, in the order of their values or with the value first (`4 Sky`), optionally with a colour (`class_lines`). CSV
files have a first line with `name`, `r`, `g`, `b`, or Roboflow's `Pixel Value`, `Class` (`class_tables`).

Classes that a list marks to be ignored are ignored; if it marks none, so are those called void, ignore, unlabelled or
unlabeled.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from resnest.data.class_names import class_rows
from resnest.errors import ResnestError
from resnest.runtime.palette import Colour
from resnest.segmentation.card import IGNORED
from resnest.segmentation.class_lines import UNCOUNTED, UNNUMBERED, parse_lines
from resnest.segmentation.class_tables import COLOURS, parse_table
from resnest.segmentation.mask_values import MaskMeaning, Value
from resnest.segmentation.result import PixelClasses

LONGEST_NAME = 200  # characters
# Files that may be lists, unless they are called as what else lies beside images
LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".names", ".yaml", ".yml")
NO_LIST = re.compile(
    r"readme|licen[cs]e|(train|val|valid|validation|test|trainval|files?|images?|splits?)$", re.IGNORECASE
)
MOST_OTHERS = 3  # in a message
VALUES = 2**31  # that a mask's pixel can have


@dataclass(frozen=True)
class Row:
    """A row of a class list."""

    value: int
    name: str
    colour: Colour | None = None
    ignore: bool = False
    placed: bool = field(default=False, compare=False)  # the list has no values: this is its place


@dataclass(frozen=True)
class ClassList:
    """Evaluated classes in order, and ignored ones."""

    rows: tuple[Row, ...]
    ignored: tuple[Row, ...] = ()
    doubt: str = ""  # as in `MaskMeaning`, and the next three
    partner: int = 1
    hint: str = ""
    in_colours: bool = False

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
    def every(self) -> tuple[Row, ...]:
        """All rows, those that are ignored last."""
        return (*self.rows, *self.ignored)

    @property
    def by_place(self) -> bool:
        """Whether the list has no values, so that the order of its names is all it says."""
        return all(row.placed for row in self.every if row.value != IGNORED)

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
        return MaskMeaning(lookup, self.classes.names, self.doubt, self.partner, self.hint, self.in_colours)


def read_class_list(folders: Sequence[Path]) -> ClassList:
    """The first list in some folders. Raises ResnestError: none, or an invalid one."""
    if (classes := find_class_list(folders)) is None:
        raise ResnestError(
            f"{folders[0]} has masks and no list of their classes: write classes.txt there, with a name a line in the"
            " order of the masks' values from 0, or classes.json with rows of index, name, color and ignore"
            + other_lists(folders)
        )
    return classes


def other_lists(folders: Sequence[Path]) -> str:
    """Files that may be lists of classes under names that are not read, for the end of a message."""
    paths = [path for folder in dict.fromkeys(folders) if folder.is_dir() for path in sorted(folder.iterdir())]
    found = [path.name for path in paths if path.suffix.lower() in LIST_SUFFIXES and not NO_LIST.match(path.stem)]
    found = [name for name in dict.fromkeys(found) if name not in READERS]
    if not found:
        return ""
    more = ", ..." if len(found) > MOST_OTHERS else ""
    return (
        f" (not read: {', '.join(found[:MOST_OTHERS])}{more}; a list of classes is called classes.txt, .csv or .json)"
    )


def find_class_list(folders: Sequence[Path]) -> ClassList | None:
    """The same; None if there is none. Raises ResnestError for an invalid one, or two that contradict each other."""
    for folder in dict.fromkeys(folders):
        paths = [folder / name for name in READERS if (folder / name).is_file()]
        if paths:
            found = _read(paths[0], READERS[paths[0].name])
            for path in paths[1:]:
                _check_same(paths[0], found, path)
            return found
    return None


def _check_same(path: Path, found: ClassList, other: Path) -> None:
    """Raises ResnestError if another list beside this one gives the same names other values."""
    try:
        beside = _read(other, READERS[other.name])
    except ResnestError:
        return  # no list of classes: it is not used
    first, second = ({row.name: row.value for row in one.every} for one in (found, beside))
    name = next((name for name, value in first.items() if second.get(name, value) != value), None)
    if name is not None and first.keys() == second.keys():
        raise ResnestError(
            f"{path} and {other.name} beside it contradict each other: {name!r} has the value {first[name]} in one and"
            f" {second[name]} in the other. Remove one of them"
        )


def _read(path: Path, read: Callable[[str], list[Row]]) -> ClassList:
    try:
        rows = read(path.read_text(encoding="utf-8-sig"))
    except ResnestError as error:
        raise ResnestError(f"{path}: {error}") from None
    except OSError as error:
        raise ResnestError(f"{path} cannot be read ({error.strerror or error})") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, csv.Error) as error:
        raise ResnestError(f"{path} is no list of classes ({error})") from None
    return ClassList.from_rows(rows, path)


def parse_json_rows(text: str) -> list[Row]:
    """The rows of a `classes.json`. Raises ResnestError or ValueError."""
    return [_row_of(item, index) for index, item in enumerate(class_rows(text))]


def _row_of(item: dict[str, Any], index: int) -> Row:
    value = item.get("index", index)
    if not str(value).removeprefix("-").isdigit():
        raise ResnestError(f"row {index}: {json.dumps(value)[:60]} is no integer")
    colour = next((item[key] for key in COLOURS if item.get(key) is not None), None)
    ignore = item.get("ignore")
    if ignore not in (None, True, False):
        raise ResnestError(f"row {index}: ignore is {json.dumps(ignore)[:60]}, not true or false")
    return replace(_row(int(value), item["name"], colour, ignore), placed=bool(item.get("placed")))


def _row(value: int, name: Any, colour: Any = None, ignore: bool | None = None) -> Row:
    """Raises ResnestError for an invalid colour."""
    name = str(name).strip()
    if not name:
        raise ResnestError(f"the class of value {value} has no name")
    if len(name) > LONGEST_NAME:
        raise ResnestError(f"the class of value {value} has a name of {len(name)} characters: {LONGEST_NAME} at most")
    if not name.isprintable():
        raise ResnestError(f"the name of class {name!r} has characters that cannot be printed")
    if not 0 <= value < VALUES:
        raise ResnestError(f"class {name!r} has the value {value}: those of masks are 0 to {VALUES - 1}")
    if isinstance(colour, str):
        code = HEXADECIMAL.fullmatch(colour.strip())
        colour = list(bytes.fromhex(code[1])) if code else [int(part) for part in re.findall(r"\d+", colour)]
    if colour is not None:
        good = isinstance(colour, (list, tuple)) and len(colour) == 3
        if not good or not all(type(part) is int and 0 <= part <= 255 for part in colour):
            raise ResnestError(f"class {name!r}: its colour {str(colour)[:60]} is not three numbers of 0 to 255")
        colour = (colour[0], colour[1], colour[2])
    return Row(value, name, colour, name.lower() in UNCOUNTED if ignore is None else bool(ignore))


def _from_text(text: str) -> list[Row]:
    rows, place = [], 0
    for line in parse_lines(text):
        value = IGNORED if line.value is None and line.name == UNNUMBERED else line.value
        row = _row(place if value is None else value, line.name, line.colour)
        rows.append(replace(row, placed=value is None))
        place += value is None
    return rows


def _from_csv(text: str) -> list[Row]:
    rows = []
    for place, row in enumerate(parse_table(text)):
        listed = _row(place if row.value is None else row.value, row.name, row.colour, row.ignore)
        rows.append(replace(listed, placed=row.value is None))
    return rows


HEXADECIMAL = re.compile(r"#?([0-9a-fA-F]{6})")
READERS: dict[str, Callable[[str], list[Row]]] = {
    "classes.json": parse_json_rows,
    "classes.txt": _from_text,
    "classnames.txt": _from_text,
    "class_names.txt": _from_text,  # labelme
    "labels.txt": _from_text,  # labelme
    "labelmap.txt": _from_text,  # CVAT
    "label_colors.txt": _from_text,  # CamVid's own
    "classes.csv": _from_csv,
    "class_dict.csv": _from_csv,
    "class_dict_seg.csv": _from_csv,
    "_classes.csv": _from_csv,  # Roboflow
}
