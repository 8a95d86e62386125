"""Boxes of a json file: detections as `resnest predict DETECTOR --coco` writes them, or COCO's list of results.

file = BoxFile.read(Path("found.json"), thing="person", category_id=1)
file.of_picture("photos/a.jpg")               # Boxes, (M, 4) and (M,); those of images whose file_name fits the path
file.of_id(139)                               # those of an image's id
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from resnest.errors import ResnestError

Rows = dict[Any, list[tuple[float, ...]]]  # image id -> x1, y1, x2, y2, score


class Boxes(NamedTuple):
    """Boxes of one picture."""

    boxes: NDArray[np.float64]  # (M, 4) x1, y1, x2, y2
    scores: NDArray[np.float64]  # (M,)

    @classmethod
    def of(cls, rows: list[tuple[float, ...]]) -> Boxes:
        table = np.array(rows, np.float64).reshape(-1, 5)
        return cls(table[:, :4], table[:, 4])


class NotListed(ResnestError):
    """A picture that a file of boxes does not have."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} {reason}")
        self.reason = reason


def nameless(path: Path) -> ResnestError:
    return ResnestError(f"{path} is a list of results, whose images have ids and no names: give COCO json with images")


@dataclass(frozen=True)
class BoxFile:
    """The boxes of a file, by image."""

    path: Path
    rows: Rows
    named: Mapping[str, list[tuple[tuple[str, ...], Any]]] | None  # last part of a name -> all parts, id; None: a list

    @classmethod
    def read(cls, path: Path, *, thing: str, category_id: int) -> BoxFile:
        """The boxes of a category, by its name or else its id; of a file with a single one of that.

        Raises:
            ResnestError: it is no such file, or none of several categories fits.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or "no json"
            raise ResnestError(f"{path} cannot be read: {reason}") from None
        try:
            entries = content if isinstance(content, list) else content["annotations"]
            named = None if isinstance(content, list) else _by_name(content["images"])
            names = {} if isinstance(content, list) else {one["id"]: one["name"] for one in content["categories"]}
            wanted = _category(path, entries, names, thing, category_id)
            rows: Rows = {}
            for entry in entries:
                if wanted is not None and entry["category_id"] != wanted:
                    continue
                own, row = rows.setdefault(entry["image_id"], []), _row(entry)
                if row[2] > row[0] and row[3] > row[1]:  # one without an area shows nothing
                    own.append(row)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise ResnestError(
                f"{path} is neither COCO json with boxes nor a list of COCO's results ({why}); needed are image_id,"
                " category_id, bbox and score"
            ) from None
        return cls(path, rows, named)

    def of_id(self, image_id: Any) -> Boxes:
        return Boxes.of(self.rows.get(image_id, []))

    def of_picture(self, name: str) -> Boxes:
        """Of the image whose file_name ends the path, or else has the same last part.

        Raises:
            NotListed: the file does not name this image, or several that fit.
            ResnestError: it names no images.
        """
        if self.named is None:
            raise nameless(self.path)
        parts = Path(os.path.abspath(name)).parts
        known = self.named.get(parts[-1], [])
        fitting = [(len(own), key) for own, key in known if parts[-len(own) :] == own]
        longest = max((count for count, _ in fitting), default=0)
        keys = [key for count, key in fitting if count == longest] or [key for _, key in known]
        if len(keys) != 1:
            raise NotListed(name, f"is {'not' if not keys else 'more than once'} among the images of {self.path}")
        return self.of_id(keys[0])


def _by_name(images: Any) -> dict[str, list[tuple[tuple[str, ...], Any]]]:
    named: dict[str, list[tuple[tuple[str, ...], Any]]] = {}
    for image in images:
        parts = tuple(part for part in PurePosixPath(image["file_name"].replace("\\", "/")).parts if part != "/")
        named.setdefault(parts[-1], []).append((parts, image["id"]))
    return named


def _category(path: Path, entries: Any, names: Mapping[Any, str], thing: str, category_id: int) -> Any:
    """The id of the category that is meant; None: there is only one."""
    used = {entry["category_id"] for entry in entries}
    if len(used) < 2:
        return None
    by_name = [key for key, name in names.items() if name == thing]
    if by_name:
        return by_name[0]
    if not names and category_id in used:
        return category_id
    listed = ", ".join(str(names.get(key, key)) for key in sorted(used, key=str)[:5])
    raise ResnestError(f"{path} has boxes of several categories ({listed}), and none is called {thing!r}")


def _row(entry: Mapping[str, Any]) -> tuple[float, ...]:
    x, y, width, height = map(float, entry["bbox"])
    row = (x, y, x + width, y + height, float(entry.get("score", 1.0)))
    if not all(map(math.isfinite, row)) or width < 0 or height < 0:
        raise ValueError(f"bbox {entry['bbox']}")
    return row
