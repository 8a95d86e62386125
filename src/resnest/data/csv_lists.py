"""Labelled images listed in a CSV file, with one label or several, and optionally their part.

table = read_csv(Path("photos.csv"))
table.parts, table.notes        # {"train": [(path, label), ...], "val": ...} or {"": [...]}; what was joined
"""

from __future__ import annotations

import csv
import io
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from resnest.data.csv_fields import Row, Split, find_parts, split_labels
from resnest.errors import ResnestError

PATH_COLUMNS, LABEL_COLUMNS = ("path", "file"), ("labels", "label")
MARKS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}  # what each delimiter is called
DELIMITERS = tuple(MARKS)  # between columns; spreadsheets write the second where the comma is a decimal sign
EMPTY = "path or label is empty (a column called labels may be)"


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
    parts = find_parts([name for name in columns if name not in (path_column, label_column)], lines, str(path))
    rows = []
    for (number, line), part in zip(lines, parts.values, strict=True):
        where, text = f"{path}, line {number}", line.get(label_column, "").strip()
        name = line.get(path_column, "")
        if not name.strip():
            raise ResnestError(f"{where}: {EMPTY}")
        if "\n" in text:
            raise ResnestError(f"{where}: the label {text!r} has a line end in it: is a quotation mark not closed?")
        rows.append(Row(number, _normal(path.parent, name), text, part))
    split = split_labels(path, rows, several=label_column == "labels")
    if not split.several and (empty := next((row for row in rows if not row.text), None)):
        raise ResnestError(f"{path}, line {empty.number}: {EMPTY}")
    return _joined(path, rows, split._replace(notes=[*split.notes, *parts.notes]))


def read_csv_parts(files: Mapping[str, Path]) -> dict[str, CsvTable]:
    """Read CSV files that are one part each. Raises ResnestError for an image that is in two of them."""
    tables: dict[str, CsvTable] = {}
    seen: dict[str, Path] = {}  # image -> its file
    for part, path in files.items():
        tables[part] = table = read_csv(path)
        if list(table.parts) != [""]:
            raise ResnestError(f"{path} has parts in a column of its own: give it as the data itself")
        for name, _ in table.parts[""]:
            if (first := seen.setdefault(name, path)) != path:
                raise ResnestError(f"{name} is in two parts, {first} and {path}: leave it in one of them")
    return tables


def read_columns(path: Path) -> tuple[str, ...]:
    """The names of the columns, in lower case. Raises ResnestError as `read_csv`."""
    return tuple(_read_lines(path)[0])


def read_column(path: Path, name: str) -> dict[str, str]:
    """What a column has for each image, by the path that `read_csv` gives it.

    Raises:
        ResnestError: an image in several lines with different values.
    """
    columns, lines = _read_lines(path)
    path_column = _first(columns, PATH_COLUMNS) or ""
    values: dict[str, str] = {}
    for number, line in lines:
        key, value = _normal(path.parent, line.get(path_column, "")), line.get(name, "").strip()
        if values.setdefault(key, value) != value:
            raise ResnestError(
                f"{path}, line {number}: {key} has {value!r} in the column {name}, and {values[key]!r} above"
            )
    return values


def _read_lines(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Columns in lower case, and the lines with their numbers."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        head = text.splitlines()[:1]
        delimiter = max(DELIMITERS, key=lambda mark: _known(head, mark))  # the first of equally good ones
        spaced = f'{delimiter} "' in text  # a space before a field in quotes
        table = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=spaced, strict=True)
        columns = [name.strip().lower() for name in next(table, [])]
        lines = [(table.line_num, line) for line in table if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ResnestError(f"{path} cannot be read as CSV: {error}") from None
    for number, line in lines:
        if any(field.strip() for field in line[len(columns) :]):
            raise ResnestError(
                f"{path}, line {number} has {len(line)} fields, and the first line {len(columns)} columns: a field"
                f" with {MARKS[delimiter]} in it needs quotation marks, and | separates the labels of an image"
            )
    if twice := next((name for number, name in enumerate(columns) if name and name in columns[:number]), None):
        raise ResnestError(f"{path} has two columns called {twice}")
    named = [(number, dict(zip(columns, line, strict=False))) for number, line in lines]
    return [name for name in columns if name], named


def _known(head: list[str], delimiter: str) -> int:
    """How many of the columns that are read a first line has."""
    names = {name.strip().lower() for name in next(csv.reader(head, delimiter=delimiter), [])}
    return len(names & {*PATH_COLUMNS, *LABEL_COLUMNS, "split"})


def _first(columns: Sequence[str], names: Iterable[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _normal(folder: Path, name: str) -> str:
    """The path without detours; with "/" if only that names a file."""
    name = name if (folder / name).exists() else name.strip()
    if "\\" in name and not (folder / name).exists():
        name = name.replace("\\", "/")
    return posixpath.normpath(name)


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
