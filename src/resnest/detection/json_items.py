"""The lists of a large json file item by item, and what is wrong with one that is none.

    read_items(Path("instances_train.json"), {"images": print, "annotations": print})

Of 450 MB of text json.load would make 3 GB of Python objects.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from resnest.errors import ResnestError

SPACE = re.compile(r"[ \t\n\r]*")
PYTHON_WORDS = {"None": "null", "True": "true", "False": "false", "nan": "no such number", "inf": "no such number"}
PYTHON = re.compile(rf"(?:{'|'.join(PYTHON_WORDS)})\b")
OPENERS, BEFORE_VALUE = ('"', "{", "["), ("[", "{", ":", ",", "")


def read_items(path: Path, take: Mapping[str, Callable[[Any], None]]) -> None:
    """Call `take[key]` with every item of that list in the file's top-level object.

    Raises:
        ResnestError: the file cannot be read, is cut off, is not such an object, or lacks one of the lists.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ResnestError(f"{path} cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise ResnestError(f"{path} is not json: byte {error.start} is not UTF-8") from None
    reader = _JsonReader(path, text)
    keys = reader.read(take)
    if missing := [key for key in take if key not in keys]:
        raise ResnestError(f"{path} has no list {' and no list '.join(map(repr, missing))}: it is not COCO json")


class _JsonReader:
    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.text = text
        self.position = 0  # of the next character
        self.decode = json.JSONDecoder().raw_decode
        self.within = ""

    def read(self, take: Mapping[str, Callable[[Any], None]]) -> set[str]:
        """Read the top-level object; returns the keys that were found."""
        keys: set[str] = set()
        if self._next() not in ("{", ""):
            raise ResnestError(f"{self.path} starts with {self._next()!r}, not with {{: it is not COCO json")
        self._expect("{")
        if self._next() == "}":
            return keys
        while True:
            key = self._value()
            self._expect(":")
            if key in take and self._next() == "[":
                keys.add(key)
                self._items(key, take[key])
            else:
                self._value()
            if self._next() == "}":
                return keys
            self._expect(",")

    def _items(self, key: str, take: Callable[[Any], None]) -> None:
        self._expect("[")
        count = 0
        if self._next() == "]":
            self.position += 1
            return
        while True:
            self.within = f" in {key!r}, after {count:,} complete items"
            take(self._value())
            count += 1
            if self._next() == "]":
                self.position += 1
                self.within = ""
                return
            self._expect(",")

    def _value(self) -> Any:
        self._next()
        try:
            value, self.position = self.decode(self.text, self.position)
        except json.JSONDecodeError as error:
            raise self._broken(self._innermost(error.pos)) from None
        except RecursionError:
            raise ResnestError(
                f"{self.path} is nested too deeply at character {self.position:,}{self.within}: it is not COCO json"
            ) from None
        return value

    def _innermost(self, at: int) -> int:
        """The place of an error within a value; Python's decoder names the comma before a closing bracket."""
        at = max(at, self.position)
        if self.text[at : at + 1] == "," and (space := SPACE.match(self.text, at + 1)):
            return space.end() if self.text[space.end() : space.end() + 1] in ("]", "}") else at
        space = SPACE.match(self.text, at)
        return space.end() if space else at

    def _next(self) -> str:
        """The next non-space character, not consumed."""
        if space := SPACE.match(self.text, self.position):
            self.position = space.end()
        return self.text[self.position : self.position + 1]

    def _expect(self, character: str) -> None:
        if self._next() != character:
            raise self._broken()
        self.position += 1

    def _broken(self, at: int | None = None) -> ResnestError:
        """The error at a character; by default at the next one."""
        self._next()
        at = self.position if at is None else at
        where = f"at character {at:,} of {len(self.text):,}{self.within}"
        if flaw := find_flaw(self.text, at):
            line = self.text.count("\n", 0, at) + 1
            return ResnestError(f"{self.path} is no valid json in line {line:,}, {where}: {flaw}")
        return ResnestError(f"{self.path} is cut off or damaged {where}: copy it again")


def find_flaw(text: str, at: int) -> str:
    """What was written in place of json at a character, as by hand or as Python prints it; "" for anything else.

    >>> find_flaw('{"a": [1, 2,]}', 12), find_flaw('{"a": tru', 6)
    ('a comma with nothing behind it', '')
    """
    before, here = text[:at].rstrip()[-1:], text[at : at + 1]
    if (here in ("]", "}") and before == ",") or (here in ("]", "}", ",") and before == ":"):
        return f"a {'comma' if before == ',' else 'colon'} with nothing behind it"
    if here == "," and before in ("[", "{", ","):
        return "a comma with nothing before it"
    if here == "'":
        return "single quotes: texts of json are in double ones"
    if word := PYTHON.match(text, at):
        return f"{word[0]} of Python: json has {PYTHON_WORDS[word[0]]}"
    if text[at : at + 2] in ("//", "/*") or here == "#":
        return "a comment, which json has not"
    if (here in OPENERS and here and before not in BEFORE_VALUE) or (here.isdigit() and before.isdigit()):
        return "a comma is missing before it"
    return ""
