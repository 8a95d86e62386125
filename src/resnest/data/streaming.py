"""A large json file, whose lists are handed out item by item.

    read_items(Path("instances_train2017.json"), {"annotations": print})

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


def read_items(path: Path, take: Mapping[str, Callable[[Any], None]]) -> None:
    """Call `take[key]` with every item of that list in the file's outermost object.

    Raises:
        ResnestError: the file cannot be read, is cut off, is not such an object, or lacks one of the lists.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ResnestError(f"{path} cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise ResnestError(f"{path} is not json: byte {error.start} is not UTF-8") from None
    reader = _Reader(path, text)
    found = reader.read(take)
    if missing := [key for key in take if key not in found]:
        raise ResnestError(f"{path} has no list {' and no list '.join(map(repr, missing))}: it is not COCO json")


class _Reader:
    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.text = text
        self.place = 0  # of the next character
        self.decode = json.JSONDecoder().raw_decode
        self.within = ""

    def read(self, take: Mapping[str, Callable[[Any], None]]) -> set[str]:
        """The outermost object; returns the keys that were taken."""
        found: set[str] = set()
        if self._next() not in ("{", ""):
            raise ResnestError(f"{self.path} starts with {self._next()!r}, not with {{: it is not COCO json")
        self._expect("{")
        if self._next() == "}":
            return found
        while True:
            key = self._value()
            self._expect(":")
            if key in take and self._next() == "[":
                found.add(key)
                self._items(key, take[key])
            else:
                self._value()
            if self._next() == "}":
                return found
            self._expect(",")

    def _items(self, key: str, take: Callable[[Any], None]) -> None:
        self._expect("[")
        count = 0
        if self._next() == "]":
            self.place += 1
            return
        while True:
            self.within = f" in {key!r}, after {count:,} complete items"
            take(self._value())
            count += 1
            if self._next() == "]":
                self.place += 1
                self.within = ""
                return
            self._expect(",")

    def _value(self) -> Any:
        self._next()
        try:
            value, self.place = self.decode(self.text, self.place)
        except json.JSONDecodeError:
            raise self._broken() from None
        except RecursionError:
            raise ResnestError(
                f"{self.path} is nested too deeply at character {self.place:,}{self.within}: it is not COCO json"
            ) from None
        return value

    def _next(self) -> str:
        """The next character that is not space, not yet taken."""
        if space := SPACE.match(self.text, self.place):
            self.place = space.end()
        return self.text[self.place : self.place + 1]

    def _expect(self, character: str) -> None:
        if self._next() != character:
            raise self._broken()
        self.place += 1

    def _broken(self) -> ResnestError:
        return ResnestError(
            f"{self.path} is cut off or damaged at character {self.place:,} of {len(self.text):,}{self.within}: copy it"
            " again"
        )
