"""Fields of a CSV list that can be written in several ways: the part of an image, and its labels.

parts = find_parts(["split"], [(2, {"split": "train"}), (3, {"split": "val"})], "photos.csv")
parts.values                                    # ["train", "val"]
split_labels(path, rows, several=True).labels   # [("rose", "vase"), ("rose",), ...]
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from resnest.data.class_names import class_text
from resnest.data.parts import part_named, role_of
from resnest.errors import ResnestError

PART_WORDS = {"split", "set", "subset", "part", "partition", "phase", "usage"}  # in the names of columns of parts
FOLD_WORDS = {"fold", "folds", "kfold"}  # of columns that are named and not read
FLAG_WORDS = {"is", "in", "image", "img", "sample", "flag", "data", *PART_WORDS}  # beside a part's: is_training_image
TRUTH = {
    **dict.fromkeys(("true", "t", "1", "1.0", "yes", "y"), True),
    **dict.fromkeys(("false", "f", "0", "0.0", "no", "n"), False),
}
# Between the labels of one image, and what they are called
SEPARATORS = {"|": "|", ";": ";", ",": "commas", " ": "spaces"}
LISTED = ("[]", "()", "{}")  # around labels that Python printed

Lines = Sequence[tuple[int, dict[str, str]]]  # each line's number and fields by column


class Row(NamedTuple):
    """A line of the file."""

    number: int
    path: str
    text: str  # of its label or labels
    part: str


# --- the part ---


class PartFields(NamedTuple):
    """The part of each line, "" in a file without parts."""

    values: list[str]
    notes: list[str]


def find_parts(columns: Sequence[str], lines: Lines, where: str) -> PartFields:
    """Parts by their words in a column, or by one flag for each part, such as `is_train`.

    A column has words of parts if it is called `split`, or if at least half of its fields are such words, of two parts;
    in a column that is called after parts, one such word will do. Flags are true or false in every line. What is called
    so and is neither is named in a note.

    Raises:
        ResnestError: a field that is no part in a column of parts; a line in no part or in two.
    """
    worded = [name for name in columns if _has_words(name, lines)]
    worded.sort(key=lambda name: (name != "split", not _words(name) & PART_WORDS))  # the others as they stand
    flags = {name: part for name in columns if (part := _flagged(name)) and name not in worded}
    flags = {name: part for name, part in flags.items() if all(_truth(line.get(name)) is not None for _, line in lines)}
    used = worded[:1] or list(flags)
    if worded:
        values = [_part(line.get(used[0], ""), used[0], f"{where}, line {number}") for number, line in lines]
    elif flags:
        values = [_by_flags(line, flags, f"{where}, line {number}") for number, line in lines]
    else:
        values = [""] * len(lines)
    called = [name for name in columns if _flagged(name) or _words(name) & (PART_WORDS | FOLD_WORDS)]
    notes = [f"parts are those of {', '.join(used)}"] if used and used != ["split"] else []
    return PartFields(values, [*notes, *(f"the column {name} is not read" for name in called if name not in used)])


def _words(column: str) -> set[str]:
    return set(re.findall("[a-z]+", column))


def _has_words(column: str, lines: Lines) -> bool:
    found = [part_named(line.get(column, "")) for _, line in lines]
    known = sum(part is not None for part in found)
    if column == "split" or (known and _words(column) & PART_WORDS):
        return True
    return 2 * known >= len(found) and len(set(found) - {None}) > 1


def _part(text: str, column: str, where: str) -> str:
    part = part_named(text)
    if part is None:
        found = f"{text!r} in the column {column} is no part" if text.strip() else f"the column {column} is empty"
        raise ResnestError(f"{where}: {found}: expected train, val or test, or another name of the column")
    return part


def _flagged(column: str) -> str | None:
    """The part of which a column of this name is a flag."""
    role = role_of(column)
    return role.part if role and set(role.rest) <= FLAG_WORDS else None


def _truth(text: str | None) -> bool | None:
    return TRUTH.get((text or "").strip().lower())


def _by_flags(line: dict[str, str], flags: dict[str, str], where: str) -> str:
    """The part whose flag is set; without one, the first part that has no flag."""
    found = {part for name, part in flags.items() if _truth(line.get(name))}
    rest = [part for part in ("train", "val", "test") if part not in flags.values()]
    if len(found) > 1 or not (found or rest):
        raise ResnestError(f"{where} is in {'two parts' if found else 'no part'} by {', '.join(flags)}")
    return next(iter(found or rest))


# --- several labels in one field ---


class Split(NamedTuple):
    """The labels of each line; `several`: an image may have any number of them."""

    labels: list[tuple[str, ...]]
    several: bool
    notes: list[str]


def split_labels(path: Path, rows: Sequence[Row], *, several: bool) -> Split:
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

    "|" and ";" do wherever they occur. Commas and spaces do in a column called `labels` alone: names of classes have
    them, too. There a space does if all that it separates occurs alone as well; if only most of it does, or recurs in
    other labels, there are two readings. In a column called `label`, labels that would be separated so are named.
    """
    texts = {row.text for row in rows if row.text}
    for mark, called in SEPARATORS.items():
        joined = {text: _pieces(text, mark) for text in texts if mark in text}
        if not joined:
            continue
        if mark == "|":
            return mark, []
        if mark == ";" or (several and mark == ","):
            return mark, [f"labels are separated by {called}"]
        pieces = Counter(piece for found in joined.values() for piece in found)
        alone = {class_text(text) for text in texts if text not in joined}
        known = sum(count for piece, count in pieces.items() if piece in alone or count > 1)
        if several and set(pieces) <= alone:
            return mark, [f"labels are separated by {called}: call the column label if each is one"]
        if 2 * known > pieces.total():
            if not several:
                return None, [f"{min(joined)!r} and the like are one label each: call the column labels if several"]
            raise ResnestError(
                f"{path}: {min(joined)!r} can be one label or several: put | between the labels of an image, or, if it"
                " is one, call the column label"
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
