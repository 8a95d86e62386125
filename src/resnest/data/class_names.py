"""Classes of labelled images: their text, their order, and lists of readable names.

names = read_class_names(Path("photos"))        # from classes.json or classnames.txt: {"n01440764": "tench"}
name_classes({"10", "9"}, names)
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from resnest.errors import ResnestError

LISTS = ("classes.json", "classnames.txt")
WRAPPERS = ("names", "classes", "class_names", "categories", "id2label", "class_to_idx", "label2id", "labels")
NAME_KEYS = ("name", "class_name", "class", "label", "title")
INDEX_KEYS = ("index", "id", "value")
NUMBER_FIRST = re.compile(r"(?P<number>\d+)\s*[\s:.,;)=]\s*(?P<name>\D.*)")  # `0 cat`, `0: cat`, `0) cat`
NUMBER_LAST = re.compile(r"(?P<name>.*?)\s*[\s:,;=]\s*(?P<number>\d+)")  # `cat 0`, `cat,0`


def class_text(text: str) -> str:
    """A label as it is compared: without spaces around it, letters composed (a Mac writes them apart), in UTF-8.

    >>> class_text(" cat "), class_text("caf\\udce9")
    ('cat', 'caf\\\\xe9')
    """
    readable = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", readable).strip()


def is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def in_order(classes: Iterable[str]) -> list[str]:
    """The one order of classes: numbers by value, and by text where these are equal; else by text.

    >>> in_order({"10", "9", "09"}), in_order({"b", "10", "9"})
    (['09', '9', '10'], ['10', '9', 'b'])
    """
    every = list(classes)
    if not all(map(is_number, every)):
        return sorted(every)
    return sorted(every, key=lambda text: (len(text.lstrip("0")), text.lstrip("0"), text))


class ByPlace(dict[str, str]):
    """Names from a list without keys: the place is the key."""


class NamedClasses(NamedTuple):
    """Classes in order, and how they are shown."""

    keys: list[str]  # as the data has them
    names: tuple[str, ...]
    notes: tuple[str, ...]


def name_classes(classes: Iterable[str], known: Mapping[str, str]) -> NamedClasses:
    """Order and name classes. A list that does not name all of them, each differently, is not used, which is said.

    A list of numbers without keys that has all classes is a list of these, not of names for them.
    """
    keys = in_order(classes)
    if isinstance(known, ByPlace) and set(keys) <= set(known.values()):
        return NamedClasses(keys, tuple(keys), ())
    names = tuple(known[key] for key in keys if key in known)
    if len(names) == len(keys) and len(set(names)) == len(names):
        return NamedClasses(keys, names, ())
    if not known or set(keys) <= set(known.values()):
        return NamedClasses(keys, tuple(keys), ())
    if len(names) < len(keys):
        missing = next(key for key in keys if key not in known)
        reason = f"it has no name for {missing}"
    else:
        [(twice, _)] = Counter(names).most_common(1)
        reason = f"it names two classes {twice}"
    return NamedClasses(keys, tuple(keys), (f"the list of classes is not used: {reason}",))


def read_class_names(*folders: Path) -> dict[str, str]:
    """Names by class key from `classes.json` or `classnames.txt` in the first folder that has one; else empty.

    Raises:
        ResnestError: a list that cannot be understood.
    """
    for folder in dict.fromkeys(folders):
        for name in LISTS:
            path = folder / name
            if not path.is_file():
                continue
            try:
                return parse_class_names(name, path.read_bytes())
            except (OSError, ValueError, RecursionError) as error:
                raise ResnestError(f"{path} is no list of class names: {error}") from None
    return {}


def parse_class_names(name: str, content: bytes) -> dict[str, str]:
    """Names by class key from the content of a file called so. Raises ValueError."""
    text = content.decode("utf-8-sig")
    if name.endswith(".txt"):
        lines = [class_text(line) for line in text.splitlines()]
        if numbered := _numbered([line for line in lines if line]):
            return numbered
        return ByPlace({str(index): line for index, line in enumerate(lines) if line})
    rows = class_rows(text)
    names: dict[str, str] = ByPlace() if all(row.get("placed") for row in rows) else {}
    for row in rows:
        for key in (class_text(str(row[kind])) for kind in ("synset", "index") if kind in row):
            if key in names:
                raise ResnestError(f"two of its classes have the key {key}")
            names[key] = class_text(str(row["name"]))
            if not names[key]:
                raise ResnestError(f"the class {key} has no name")
    return names


def _numbered(lines: list[str]) -> dict[str, str]:
    """Names by the numbers that all lines begin with, or all end with; empty where these number no different names."""
    for pattern in (NUMBER_FIRST, NUMBER_LAST):
        found = [match.groupdict() for line in lines if (match := pattern.fullmatch(line))]
        numbers = sorted(int(groups["number"]) for groups in found)
        names = {groups["number"]: groups["name"] for groups in found}
        every = len(found) == len(lines) > 1 and numbers in [list(range(first, first + len(lines))) for first in (0, 1)]
        if every and len(set(names.values())) == len(lines):
            return names
    return {}


def class_rows(text: str) -> list[dict[str, Any]]:
    """The rows of a `classes.json`: each has a `name`, and a `synset`, an `index` or both.

    The file holds such rows (`id` or `value` do for `index`, `class` or `label` for `name`), a list of names,
    {key: name}, {name: index}, {index: [synset, name]} as Keras has it, or one of these under a key such as `names` or
    `id2label`. A row without any key has its place as its index, and is `placed`. Raises ValueError.
    """
    content = json.loads(text)
    if isinstance(content, dict):
        inner = next((key for key in WRAPPERS if isinstance(content.get(key), dict | list)), None)
        content = content if inner is None else content[inner]
    return _rows_of_mapping(content) if isinstance(content, dict) else _rows_of_list(content)


def _rows_of_mapping(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    values = list(content.values())
    if not values:
        raise ResnestError("it is empty")
    if all(isinstance(value, str) and value.strip() for value in values):
        return _reversed(content) or [{"index": key, "name": name} for key, name in content.items()]
    if all(type(value) is int and value >= 0 for value in values):
        return [{"index": index, "name": name} for name, index in content.items()]
    if all(map(_is_pair, values)):
        return [{"index": key, "synset": synset, "name": name} for key, (synset, name) in content.items()]
    if all(isinstance(value, dict) for value in values):
        return _rows_of_list([{"index": key, **row} for key, row in content.items()])
    key, value = next(iter(content.items()))
    raise ResnestError(f"expected {{key: name}} or {{name: number}}, it has {json.dumps({key: value})[:60]}")


def _reversed(content: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows of {name: "0"}, whose values are numbers and whose keys are not; empty for anything else."""
    if all(map(is_number, content.values())) and not any(map(is_number, content)):
        return [{"index": index, "name": name} for name, index in content.items()]
    return []


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(item, str) for item in value)


def _rows_of_list(content: Any) -> list[dict[str, Any]]:
    if not isinstance(content, list) or not content:
        raise ResnestError("expected a list of classes")
    if all(isinstance(row, str) for row in content):
        return [{"index": index, "name": name, "placed": True} for index, name in enumerate(content)]
    if all(isinstance(row, dict) and len(row) == 1 and not row.keys() & {*NAME_KEYS, *INDEX_KEYS} for row in content):
        merged = {key: value for row in content for key, value in row.items()}
        if len(merged) == len(content):  # [{"cat": 0}, {"dog": 1}]
            return _rows_of_mapping(merged)
    return [_row(row, place) for place, row in enumerate(content)]


def _row(row: Any, place: int) -> dict[str, Any]:
    texts = [row[key] for key in NAME_KEYS if isinstance(row.get(key), str)] if isinstance(row, dict) else []
    name = texts[0] if texts else row.get("name") if isinstance(row, dict) else None
    if type(name) not in (str, int):
        raise ResnestError(f"row {place} ({json.dumps(row)[:60]}) has no name")
    numbers = [row[key] for key in INDEX_KEYS if key in row]
    if any(type(number) not in (int, str) for number in numbers):
        raise ResnestError(f"row {place} ({json.dumps(row)[:60]}) has an index that is no number")
    named = {**row, "name": name}
    if not numbers and "synset" not in row:
        return {**named, "index": place, "placed": True}
    return {**named, "index": numbers[0]} if numbers else named
