"""Lists of pictures for `resnest predict`: a text file with one name a line, a CSV, or names on standard input."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import IO

from resnest.errors import ResnestError

STANDARD_INPUT = "-"
TEXTS, TABLES = (".txt", ".lst", ".list"), (".csv", ".tsv")
COLUMNS = ("path", "file", "file_name", "filename", "filepath", "file_path", "image_path", "image", "img")
CHUNK = 2**16  # bytes: a list may have millions of names
BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16, which PowerShell's `>` writes


def is_list(text: str) -> bool:
    """Whether a word of the command line stands for a list of pictures."""
    return text == STANDARD_INPUT or (text.lower().endswith((*TEXTS, *TABLES)) and Path(text).is_file())


def is_table(text: str) -> bool:
    """Whether a list is a table, which may have several lines for a picture."""
    return text.lower().endswith(TABLES)


def read_list(text: str) -> Iterator[Path | str]:
    """The files that a list names, and addresses, one by one; relative names are of its folder, or the current one.

    Raises:
        ResnestError: it cannot be read, has no column of names, or names no file; a name means two files.
    """
    from resnest.runtime.sources import is_address

    standard = text == STANDARD_INPUT
    where = "standard input" if standard else text
    folder = None if standard else Path(text).parent
    count, first, found = 0, "", False
    try:
        for name in _column(text) if is_table(text) else _lines(text):
            file = name.strip() if is_address(name.strip()) else _file(name, folder, where)
            count, first = count + 1, first or name
            found = found or isinstance(file, str) or os.path.exists(file)
            yield file
    except OSError as error:
        raise ResnestError(f"{where} cannot be read: {error.strerror or error}") from None
    if not count:
        raise ResnestError(f"{where} names no pictures")
    if not found:
        places = f"in {Path.cwd()}" if folder is None else f"in {folder} or the current folder"
        raise ResnestError(f"{where}: none of its {count} names is a file {places}, such as {first!r}")


def _lines(text: str) -> Iterator[str]:
    """One name a line, or separated by zeros, as `find -print0` writes them.

    Bytes that are not UTF-8 become what `os.fsdecode` makes of them, as names of files do.
    """
    with nullcontext(sys.stdin.buffer) if text == STANDARD_INPUT else open(text, "rb") as file:
        start = file.read(CHUNK)
        if start.startswith(BYTE_ORDER_MARKS):
            names = iter((start + file.read()).decode("utf-16", "replace").split("\n"))
        else:
            separator = b"\0" if b"\0" in start else b"\n"
            names = (os.fsdecode(name) for name in _split(file, start.removeprefix(b"\xef\xbb\xbf"), separator))
            if separator == b"\0":
                yield from filter(None, names)
                return
        yield from (name.removesuffix("\r") for name in names if name.strip())


def _split(file: IO[bytes], start: bytes, separator: bytes) -> Iterator[bytes]:
    """The parts of a stream that has begun with `start`."""
    rest = b""
    for chunk in chain([start], iter(lambda: file.read(CHUNK), b"")):
        *whole, rest = (rest + chunk).split(separator)
        yield from whole
    yield rest


def _column(text: str) -> Iterator[str]:
    """The names of a table."""
    with open(text, "rb") as file:
        marked = file.read(2) in BYTE_ORDER_MARKS
    encoding, errors = ("utf-16", "replace") if marked else ("utf-8-sig", "surrogateescape")
    with open(text, encoding=encoding, errors=errors, newline="") as lines:
        header = lines.readline()
        lines.seek(0)
        separator = max(",;\t", key=header.count)
        try:
            table = csv.DictReader(lines, delimiter=separator)
            columns = {(name or "").strip().lower(): name for name in table.fieldnames or ()}
            column = next((columns[name] for name in COLUMNS if name in columns), None)
            if column is None:
                raise ResnestError(
                    f"{text} needs a column {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}; its first line has:"
                    f" {', '.join(columns) or 'nothing'}"
                )
            yield from (name for row in table if (name := (row[column] or "").strip()))
        except csv.Error as error:
            raise ResnestError(f"{text} cannot be read as CSV: {error}") from None


def _file(name: str, folder: Path | None, where: str) -> Path:
    """The file of a name, of its stripped form if only that exists."""
    name = next((form for form in (name, name.strip()) if _exists(Path(form), folder)), name)
    here = Path(name)
    if folder is None or not os.path.exists(folder / here):
        return here
    beside = folder / here
    if os.path.exists(here) and not here.samefile(beside):
        raise ResnestError(
            f"{where}: {name} may be {here.absolute()} or {beside.absolute()}: write whole paths, or move the list"
        )
    return here if os.path.exists(here) else beside


def _exists(name: Path, folder: Path | None) -> bool:
    return os.path.exists(name) or (folder is not None and os.path.exists(folder / name))
