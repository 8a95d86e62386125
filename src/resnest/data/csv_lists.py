"""Labelled images listed in a CSV file, with one label or several, and optionally their part.

table = read_csv(Path("photos.csv"))
table.parts, table.notes        # {"train": [(path, label), ...], "val": ...} or {"": [...]}; what was joined
"""

from __future__ import annotations

import ast
import csv
import io
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from resnest.data.class_names import class_text
from resnest.data.parts import part_named
from resnest.errors import ResnestError

PATH_COLUMNS, LABEL_COLUMNS = ("path", "file"), ("labels", "label")
# Columns of parts; all but the first only if they have nothing else in them
PART_COLUMNS = ("split", "set", "subset", "part", "partition", "phase", "usage", "is_valid", "is_test")
FOLD_COLUMNS = ("fold", "folds", "kfold")
TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
DELIMITERS = (",", ";", "\t")  # between columns; spreadsheets write the second where the comma is a decimal sign
SEPARATORS = {
    "|": "|",
    ";": ";",
    ",": "commas",
    " ": "spaces",
}  # between the labels of one image, and what they are called
EMPTY = "path or label is empty (a column called labels may be)"
LISTED = ("[]", "()", "{}")  # around labels that Python printed


class Row(NamedTuple):
    """A line of the file."""

    number: int
    path: str
    text: str  # of its label or labels
    part: str


@dataclass(frozen=True)
class CsvTable:
    """Images by part; one part "" if the file has none."""

    parts: dict[str, list[tuple[str, str | tuple[str, ...]]]]  # path, label or labels
    notes: tuple[str, ...]


def read_csv(path: Path) -> CsvTable:
    """Read a CSV file. It is multi-label if its column is called `labels`, or if labels are separated.

    Raises:
        ResnestError: no CSV file, a column missing, a line without path or label, an unknown part, an image in two
            parts or with two labels, labels that can be read in two ways.
    """
    columns, lines = _read_lines(path)
    path_column, label_column = (_first(columns, names) for names in (PATH_COLUMNS, LABEL_COLUMNS))
    if path_column is None or label_column is None:
        raise ResnestError(
            f"{path} needs the columns path and label (or labels) in its first line, it has:"
            f" {', '.join(columns) or 'none'}"
        )
    if not lines:
        raise ResnestError(f"{path} has no line below its first one")
    part_column = _part_column(columns, lines)
    rows = []
    for number, line in lines:
        where, text = f"{path}, line {number}", (line.get(label_column) or "").strip()
        name = line.get(path_column) or ""
        if not name.strip():
            raise ResnestError(f"{where}: {EMPTY}")
        part = _part(line.get(part_column) or "", part_column, where) if part_column else ""
        rows.append(Row(number, _normal(path.parent, name), text, part))
    split = _split_labels(path, rows, several=label_column == "labels")
    if not split.several and (empty := next((row for row in rows if not row.text), None)):
        raise ResnestError(f"{path}, line {empty.number}: {EMPTY}")
    unread = [name for name in columns if name in (*PART_COLUMNS, *FOLD_COLUMNS) and name != part_column]
    notes = [f"the column {name} is not read" for name in unread]
    return _joined(path, rows, split._replace(notes=[*split.notes, *notes]))


def _read_lines(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Columns in lower case, and the lines with their numbers."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        head = text.splitlines()[:1]
        delimiter = max(DELIMITERS, key=lambda mark: _known(head, mark))  # the first of equally good ones
        table = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        columns = [name.strip().lower() for name in next(table, [])]
        lines = [(table.line_num, dict(zip(columns, line, strict=False))) for line in table if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ResnestError(f"{path} cannot be read as CSV: {error}") from None
    if twice := next((name for number, name in enumerate(columns) if name and name in columns[:number]), None):
        raise ResnestError(f"{path} has two columns called {twice}")
    return [name for name in columns if name], lines


def _known(head: list[str], delimiter: str) -> int:
    """How many of the columns that are read a first line has."""
    names = {name.strip().lower() for name in next(csv.reader(head, delimiter=delimiter), [])}
    return len(names & {*PATH_COLUMNS, *LABEL_COLUMNS, "split"})


def _first(columns: Sequence[str], names: Iterable[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _part_column(columns: Sequence[str], lines: Sequence[tuple[int, dict[str, str]]]) -> str | None:
    usable = (name for name in PART_COLUMNS if name in columns)
    return next(
        (name for name in usable if name == "split" or all(_part_in(name, line.get(name)) for _, line in lines)), None
    )


def _part_in(column: str, text: str | None) -> str | None:
    """The part that a field says; None for anything else."""
    if not column.startswith("is_"):
        return part_named(text or "")
    truth = TRUTH.get((text or "").strip().lower())
    return None if truth is None else "train" if not truth else part_named(column.removeprefix("is_"))


def _part(text: str, column: str, where: str) -> str:
    part = _part_in(column, text)
    if part is None:
        found = f"{text!r} in the column {column} is no part" if text.strip() else f"the column {column} is empty"
        raise ResnestError(f"{where}: {found}: expected train, val or test")
    return part


def _normal(folder: Path, name: str) -> str:
    """The path without detours; with "/" if only that names a file."""
    name = name if (folder / name).exists() else name.strip()
    if "\\" in name and not (folder / name).exists():
        name = name.replace("\\", "/")
    return posixpath.normpath(name)


# --- several labels in one field ---


class Split(NamedTuple):
    """The labels of each line; `several`: an image may have any number of them."""

    labels: list[tuple[str, ...]]
    several: bool
    notes: list[str]


def _split_labels(path: Path, rows: Sequence[Row], *, several: bool) -> Split:
    listed = [_listed(row.text) for row in rows]
    if any(labels is not None for labels in listed):
        found = [_one(row.text) if labels is None else labels for row, labels in zip(rows, listed, strict=True)]
        return Split(_checked(found, rows, path), True, ["labels are read from lists in brackets"])
    mark, notes = _separator(path, rows, several=several)
    if mark is None:
        return Split(_checked([_one(row.text) for row in rows], rows, path), several, notes)
    return Split(_checked([_pieces(row.text, mark) for row in rows], rows, path), True, notes)


def _one(text: str) -> tuple[str, ...]:
    return (class_text(text),) if text else ()


def _listed(text: str) -> tuple[str, ...] | None:
    """Labels of "['cat', 'dog']", as Python and NumPy print them; None for anything else."""
    if text[:1] + text[-1:] not in LISTED:
        return None
    try:
        found = ast.literal_eval(re.sub(r"""(['"])\s+(['"])""", r"\1, \2", text))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    good = isinstance(found, list | tuple | set) and all(isinstance(label, str | int) for label in found)
    return tuple(class_text(str(label)) for label in found) if good else None


def _separator(path: Path, rows: Sequence[Row], *, several: bool) -> tuple[str | None, list[str]]:
    """What separates the labels of an image, and notes.

    "|" and ";" do wherever they occur, and a comma in a column called `labels`. Otherwise a comma or space does if all
    that it separates occurs alone, too. If only most of it does, or recurs in other labels, there are two readings;
    names of classes often have words in common, so that in a column called `label` a space separates nothing then.
    """
    texts = {row.text for row in rows if row.text}
    for mark, called in SEPARATORS.items():
        joined = {text: _pieces(text, mark) for text in texts if mark in text}
        if not joined:
            continue
        said = [f"labels are separated by {called}"] if mark != "|" else []
        if mark in "|;" or (several and mark == ","):
            return mark, said
        pieces = Counter(piece for found in joined.values() for piece in found)
        alone = {class_text(text) for text in texts if text not in joined}
        if set(pieces) <= alone:
            return mark, said
        known = sum(count for piece, count in pieces.items() if piece in alone or count > 1)
        if 2 * known > pieces.total():
            first = min(joined)
            if mark == " " and not several:
                return None, [f"{first!r} and the like are one label each"]
            raise ResnestError(
                f"{path}: {first!r} can be one label or several: put | between the labels of an image, or, if it is"
                f" one, {'call the column label' if several else 'write it without a comma'}"
            )
    return None, []


def _pieces(text: str, mark: str) -> tuple[str, ...]:
    return tuple(map(class_text, text.split(None if mark == " " else mark))) if text else ()


def _checked(found: list[tuple[str, ...]], rows: Sequence[Row], path: Path) -> list[tuple[str, ...]]:
    for labels, row in zip(found, rows, strict=True):
        where = f"{path}, line {row.number}"
        if not all(labels):
            raise ResnestError(f"{where}: an empty label in {row.text!r}")
        if twice := next((label for number, label in enumerate(labels) if label in labels[:number]), None):
            raise ResnestError(f"{where}: the label {twice!r} is listed twice")
    return found


# --- one image in several lines ---


def _joined(path: Path, rows: Sequence[Row], split: Split) -> CsvTable:
    """Each image once, with the labels of all of its lines."""
    images: dict[str, tuple[Row, tuple[str, ...]]] = {}
    repeated = 0
    for row, labels in zip(rows, split.labels, strict=True):
        if row.path not in images:
            images[row.path] = row, labels
            continue
        first, before = images[row.path]
        repeated += 1
        lines = f"{path}: {row.path} in line {first.number} and in line {row.number}"
        if row.part != first.part:
            raise ResnestError(f"{lines} is in two parts, {first.part} and {row.part}: leave one line of them")
        if labels != before and not split.several:
            raise ResnestError(
                f"{lines} has two labels, {before[0]} and {labels[0]}: leave one, or call the column labels if an image"
                " may have several"
            )
        images[row.path] = first, tuple(dict.fromkeys((*before, *labels)))
    parts: dict[str, list[tuple[str, str | tuple[str, ...]]]] = {}
    for name, (row, labels) in images.items():
        parts.setdefault(row.part, []).append((name, labels if split.several else labels[0]))
    notes = [f"{repeated} lines repeat an image and are joined with its first"] if repeated else []
    return CsvTable(parts, (*split.notes, *notes))
