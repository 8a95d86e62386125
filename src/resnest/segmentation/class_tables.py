"""CSV tables of classes: which column is the name, the value and the colour of a class.

    parse_table("number,name\\n2,sky\\n0,road")      # [TableRow("sky", 2), TableRow("road", 0)]

Columns are told by their names, and by whether they hold whole numbers. A column of whole numbers that may or may not
be the values of masks is refused, unless these are 0, 1, 2, ... in the order of the lines.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resnest.errors import ResnestError

COLOURS = ("color", "colour", "rgb", "hex")  # of a whole colour, in JSON too
COLOUR_PARTS = (("r", "g", "b"), ("red", "green", "blue"))
NAME_COLUMNS = ("name", "class", "classname", "labelname", "label", "category", "categoryname", "title")
# Columns that can only be values of masks decide against others, such as the number of a line.
VALUE_COLUMNS = (
    ("pixelvalue", "value", "maskvalue", "labelvalue", "classvalue", "pixel", "gray", "grey", "grayvalue", "greyvalue",
     "graylevel", "greylevel", "grayscale", "greyscale", "intensity"),
    ("index", "id", "idx", "number", "no", "nr", "num", "code", "key", "classid", "classindex", "classidx", "classno",
     "classnumber", "classcode", "labelid", "labelindex", "labelidx", "labelnumber", "labelcode", "categoryid",
     "trainid", "label", "class"),
)  # fmt: skip
IGNORE_COLUMNS = ("ignore", "ignored", "ignoreineval")
MARKS = {"": None, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}
WHOLE = re.compile(r"[+-]?\d{1,18}(?:\.0+)?")  # pandas writes 3.0 in a column that lacks a cell
MOST_SHOWN = 8  # columns in a message


@dataclass(frozen=True)
class TableRow:
    """A class; without a value, its place in the table is its value."""

    name: str
    value: int | None = None
    colour: Any = None  # a text, or three numbers
    ignore: bool | None = None


Table = Sequence[Mapping[str, str]]


def parse_table(text: str) -> list[TableRow]:
    """The classes of a table. Raises ResnestError: a column that can be read in two ways, or a table of no classes."""
    head = text.partition("\n")[0]
    reader = csv.DictReader(text.splitlines(), delimiter=max(",;\t", key=head.count), skipinitialspace=True)
    columns = {_plain(name): name for name in reader.fieldnames or () if name is not None}
    named = [columns[key] for key in NAME_COLUMNS if key in columns]
    if not named:
        shown = ", ".join([*columns.values()][:MOST_SHOWN])[:100]
        raise ResnestError(f"expected a first line with name, r, g, b; it has {shown or 'none'}")
    table = [{key: (cell or "").strip() for key, cell in row.items()} for row in _whole_rows(reader)]
    name = next((column for column in named if not _is_numeric(table, column)), named[0])
    parts = max(([columns[key] for key in keys if key in columns] for keys in COLOUR_PARTS), key=len)
    if len(parts) in (1, 2):
        raise ResnestError(f"a colour needs three columns, r, g and b; it has {', '.join(parts)}")
    colour = next((columns[key] for key in COLOURS if key in columns), None)
    ignore = next((columns[key] for key in IGNORE_COLUMNS if key in columns), None)
    value = _value_column(table, {key: column for key, column in columns.items() if column != name})
    return [
        TableRow(
            row[name],
            int(float(row[value])) if value is not None else None,
            [int(row[part]) for part in parts] or ((row[colour] or None) if colour else None),
            _mark(row[ignore], ignore) if ignore else None,
        )
        for row in table
    ]


def _whole_rows(reader: csv.DictReader[str]) -> list[dict[str, str]]:
    """Raises ResnestError for a line of more fields than the first."""
    rows = []
    for row in reader:
        if None in row:
            raise ResnestError(f"line {reader.line_num} has more fields than the first line: quote names with commas")
        rows.append(row)
    return rows


def _value_column(table: Table, columns: Mapping[str, str]) -> str | None:
    """The column of the values of masks, by key and name of the others than the class's name; None: the order is meant.

    Raises:
        ResnestError: columns that contradict each other, or one that may be it.
    """
    for keys in VALUE_COLUMNS:
        found = [columns[key] for key in keys if key in columns and _some_number(table, columns[key])]
        for column in found:
            if (bad := next((row[column] for row in table if not WHOLE.fullmatch(row[column])), None)) is not None:
                raise ResnestError(f"the column {column!r} has {bad[:60]!r}, which is no whole number")
        for other in found[1:]:
            if _numbers(table, other) != _numbers(table, found[0]):
                raise ResnestError(
                    f"the columns {found[0]!r} and {other!r} both may be the values of masks, and differ: leave the"
                    " one that is"
                )
        if found:
            return found[0]
    known = {key for keys in (COLOURS, *COLOUR_PARTS, IGNORE_COLUMNS) for key in keys}
    for key, column in columns.items():
        if key not in known and _is_numeric(table, column) and _numbers(table, column) != list(range(len(table))):
            shown = f"the column {column!r}" if column else "the column without a name"
            raise ResnestError(
                f"{shown} has whole numbers, which may be the values of masks: call it 'value' if they are, else"
                " remove it"
            )
    return None


def _plain(name: str) -> str:
    """`Pixel Value`, `pixel_value` and `pixelValue` are one."""
    return re.sub(r"[\W_]", "", name).lower()


def _is_numeric(table: Table, column: str) -> bool:
    return bool(table) and all(WHOLE.fullmatch(row[column]) for row in table)


def _some_number(table: Table, column: str) -> bool:
    return any(WHOLE.fullmatch(row[column]) for row in table)


def _numbers(table: Table, column: str) -> list[int]:
    return [int(float(row[column])) for row in table]


def _mark(text: str, column: str) -> bool | None:
    """Raises ResnestError."""
    if text.lower() not in MARKS:
        raise ResnestError(f"the column {column!r} has {text[:60]!r}: expected 0, 1, true, false, yes, no or nothing")
    return MARKS[text.lower()]
