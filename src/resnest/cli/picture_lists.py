"""Lists of pictures for `resnest predict`: a text file with one name a line, a CSV, or names on standard input."""

from __future__ import annotations

import csv
import io
import os
import sys
from pathlib import Path

from resnest.errors import ResnestError

STANDARD_INPUT = "-"
TEXTS, TABLES = (".txt", ".lst", ".list"), (".csv", ".tsv")
COLUMNS = ("path", "file", "file_name", "filename", "filepath", "file_path", "image_path", "image", "img")
BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16, which PowerShell's `>` writes


def is_list(text: str) -> bool:
    """Whether a word of the command line stands for a list of pictures."""
    return text == STANDARD_INPUT or (text.lower().endswith((*TEXTS, *TABLES)) and Path(text).is_file())


def read_list(text: str) -> list[Path | str]:
    """The files that a list names, and addresses; relative names are those of its folder, or of the current one.

    Raises:
        ResnestError: it cannot be read, has no column of names, or names no file; a name means two files.
    """
    from resnest.runtime.sources import is_address

    where = "standard input" if text == STANDARD_INPUT else text
    try:
        content = sys.stdin.buffer.read() if text == STANDARD_INPUT else Path(text).read_bytes()
    except OSError as error:
        raise ResnestError(f"{where} cannot be read: {error.strerror or error}") from None
    names = _column(content, where) if text.lower().endswith(TABLES) else _lines(content)
    if not names:
        raise ResnestError(f"{where} names no pictures")
    folder = None if text == STANDARD_INPUT else Path(text).parent
    files = [name.strip() if is_address(name.strip()) else _file(name, folder, where) for name in names]
    if not any(isinstance(file, str) or os.path.exists(file) for file in files):
        places = f"in {Path.cwd()}" if folder is None else f"in {folder} or the current folder"
        raise ResnestError(f"{where}: none of its {len(names)} names is a file {places}, such as {names[0]!r}")
    return files


def _text(content: bytes) -> str:
    """Bytes that are not UTF-8 become what `os.fsdecode` makes of them, as names of files do."""
    if content.startswith(BYTE_ORDER_MARKS):
        return content.decode("utf-16", "replace")
    return content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")


def _lines(content: bytes) -> list[str]:
    """One name a line, or separated by zeros, as `find -print0` writes them."""
    if b"\0" in content and not content.startswith(BYTE_ORDER_MARKS):
        return [os.fsdecode(name) for name in content.split(b"\0") if name]
    lines = (line.removesuffix("\r") for line in _text(content).split("\n"))
    return [line for line in lines if line.strip()]


def _column(content: bytes, where: str) -> list[str]:
    """The names of a table, each once: it may have several lines for a picture."""
    text = _text(content)
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)
    try:
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
        columns = {(name or "").strip().lower(): name for name in table.fieldnames or ()}
        column = next((columns[name] for name in COLUMNS if name in columns), None)
        if column is None:
            raise ResnestError(
                f"{where} needs a column {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}; its first line has:"
                f" {', '.join(columns) or 'nothing'}"
            )
        return list(dict.fromkeys(row[column].strip() for row in table if (row[column] or "").strip()))
    except csv.Error as error:
        raise ResnestError(f"{where} cannot be read as CSV: {error}") from None


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
