"""`data.group`: what belongs together and is held out together, such as the pictures of a patient, a scene or a slide.

    found = find_groups("folder:1", ["rose/p12/1.jpg", "rose/p12/2.jpg", "tulip/p7/1.jpg"], None, "photos")
    found.names, found.told       # ["p12", "p12", "p7"], "folder 1 above a picture, p12 of rose/p12/1.jpg"

Three ways to say it: a column of a CSV list, by its name; `folder:N`, the N-th folder above a picture, from 1; a
regular expression with one group in parentheses, which is searched in a picture's name with its folders.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from resnest.data.csv_lists import read_column
from resnest.errors import ResnestError
from resnest.figures import counted

FOLDER = re.compile(r"folder:(\d+)")
WAYS = "expected folder:N, a regular expression with one group in parentheses, or a column of a CSV list"


class Columns(NamedTuple):
    """The columns of a data set's lists."""

    files: tuple[Path, ...]
    names: tuple[str, ...]

    def read(self, name: str) -> Mapping[str, str]:
        """The value of each picture, by its key. Raises ResnestError for a picture with two values."""
        values: dict[str, str] = {}
        for file in self.files:
            values |= read_column(file, name)
        return values


@dataclass(frozen=True)
class Groups:
    """The group of each picture."""

    names: Sequence[str]  # (N,)
    told: str  # how they were found, with an example

    @cached_property
    def numbers(self) -> NDArray[np.int64]:
        """(N,) from 0, in the order of their names."""
        return np.unique(np.array(self.names, object), return_inverse=True)[1].astype(np.int64)

    @cached_property
    def distinct(self) -> Sequence[str]:
        return sorted(set(self.names))


def check_group(setting: str) -> None:
    """Raises ResnestError for what can be none of the three, whatever the data is."""
    if (folder := FOLDER.fullmatch(setting)) and int(folder[1]) < 1:
        raise ResnestError(f"data.group={setting}: folders count from 1, the one that a picture is in")
    if not setting.strip():
        raise ResnestError(f"data.group is empty: {WAYS}")
    if "(" in setting:
        _compiled(setting)


def find_groups(setting: str, keys: Sequence[str], columns: Columns | None, where: str) -> Groups:
    """The groups of pictures by their keys.

    Raises:
        ResnestError: no such column; a picture without a group, with their number and an example.
    """
    check_group(setting)
    if columns and setting.strip().lower() in columns.names:
        name = setting.strip().lower()
        values = columns.read(name)
        return _groups(setting, keys, lambda key: values.get(key), f"the column {name}", where)
    if folder := FOLDER.fullmatch(setting):
        level = int(folder[1])
        return _groups(setting, keys, lambda key: _folder(key, level), f"folder {level} above a picture", where)
    if "(" not in setting:
        known = f" ({', '.join(columns.names)})" if columns else ""
        raise ResnestError(f"data.group={setting}: {where} has no column {setting!r}{known}; {WAYS}")
    pattern = _compiled(setting)
    return _groups(setting, keys, lambda key: _matched(pattern, key), f"{setting} in the names", where)


def _groups(setting: str, keys: Sequence[str], group: Callable[[str], str | None], how: str, where: str) -> Groups:
    found = [group(key) for key in keys]
    without = [key for key, name in zip(keys, found, strict=True) if not name]
    if without:
        raise ResnestError(
            f"data.group={setting}: {len(without):,} of the {counted(len(keys), 'image', 'images')} of {where} have no"
            f" group by {how}, such as {without[0]}"
        )
    names = [name for name in found if name]
    return Groups(names, f"{how}, {names[0]} of {keys[0]}" if names else how)


def _folder(key: str, level: int) -> str | None:
    """
    >>> _folder("rose/p12/1.jpg", 1), _folder("rose/p12/1.jpg", 2), _folder("1.jpg", 1)
    ('p12', 'rose', None)
    """
    folders = PurePosixPath(key).parts[:-1]
    return folders[-level] if level <= len(folders) else None


def _matched(pattern: re.Pattern[str], key: str) -> str | None:
    found = pattern.search(key)
    return found[1] if found else None


def _compiled(setting: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(setting)
    except re.error as error:
        raise ResnestError(f"data.group={setting} is no regular expression: {error}") from None
    if pattern.groups != 1:
        raise ResnestError(
            f"data.group={setting} has {pattern.groups} groups in parentheses: expected one, around the name of what"
            " belongs together; (?:...) is none"
        )
    return pattern
