"""What COCO's json files have in common: lists of images and categories, and how their entries are told in errors."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.errors import ResnestError

INCOMPLETE = "suspect_incomplete"
MOST_CATEGORIES = 65536  # the largest set, V3Det (arXiv 2304.03752), has 13,204; a mask head has an output for each

Numbers = NDArray[np.int64]


class CocoLists:
    """Collects images and categories in whatever order the file has them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: list[str] = []
        self.image_ids = array("q")
        self.sizes = array("i")
        self.incomplete = bytearray()
        self.categories: dict[int, str] = {}

    def image(self, item: Any) -> None:
        """Raises ResnestError for one that is not complete."""
        try:
            self.names.append(str(item["file_name"]))
            self.image_ids.append(item["id"])
            self.sizes.extend((item["width"], item["height"]))
        except (KeyError, TypeError, OverflowError) as error:
            raise ResnestError(
                f"{self.path}: image {told(item)}: {missing(error)}; needed are whole numbers id, width and height,"
                " and file_name"
            ) from None
        if min(self.sizes[-2:]) < 1:
            raise ResnestError(f"{self.path}: image {told(item)}: width and height must be 1 pixel or more")
        self.incomplete.append(bool(item.get(INCOMPLETE)))

    def category(self, item: Any) -> None:
        """Raises ResnestError for one that is not complete, and for a second one of a number."""
        try:
            number, name = item["id"], str(item["name"])
            array("q", [number])
        except (KeyError, TypeError, OverflowError) as error:
            raise ResnestError(
                f"{self.path}: category {told(item)}: {missing(error)}; needed are a whole number id, and name"
            ) from None
        if number in self.categories:
            raise ResnestError(
                f"{self.path}: two categories have the id {number}: {self.categories[number]!r} and {name!r}"
            )
        self.categories[number] = name

    def images(self) -> tuple[Numbers, NDArray[np.int32]]:
        """Their ids, (N,), and width and height, (N, 2). Raises ResnestError where there is none, or two of an id."""
        ids = np.array(self.image_ids, np.int64)
        if not len(ids):
            raise ResnestError(f"{self.path} lists no image")
        order = np.argsort(ids, kind="stable")
        if len(twice := np.flatnonzero(np.diff(ids[order]) == 0)):
            first, second = (self.names[order[place]] for place in (twice[0], twice[0] + 1))
            raise ResnestError(f"{self.path}: two images have the id {ids[order[twice[0]]]}: {first} and {second}")
        return ids, np.array(self.sizes, np.int32).reshape(-1, 2)


def places_of(numbers: Numbers, known: Numbers) -> tuple[Numbers, Numbers]:
    """Where each of them is among the known ones, and the places of those that are not."""
    order = np.argsort(known, kind="stable")
    ranked = known[order]
    places = np.minimum(np.searchsorted(ranked, numbers), len(known) - 1)
    return order[places], np.flatnonzero(ranked[places] != numbers)


def told(item: Any) -> str:
    """The id of an entry, or how it starts."""
    if not isinstance(item, dict) or "id" not in item:
        return short(item)
    return item["id"][:60] if isinstance(item["id"], str) else short(item["id"])


def short(value: Any) -> str:
    """The start of some json."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def missing(error: Exception) -> str:
    """What is wrong with an entry that could not be read."""
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else f"not as expected ({error})"
