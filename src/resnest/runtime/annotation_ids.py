"""Ids of pictures and classes in an annotation file as COCO has it, for results that are compared with that file.

ids = AnnotationIds.read(Path("instances_val.json"))
pictures = ids.number(pictures)           # with the file's ids of pictures
card = ids.renumber(card)                 # with the file's ids of classes, by their names
ids.notes                                 # what differs: lines for people
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from resnest.errors import ResnestError
from resnest.runtime.card import ModelCard
from resnest.runtime.outputs import Placed

Card = TypeVar("Card", bound=ModelCard)
Parts = tuple[str, ...]  # of a path


@dataclass(frozen=True)
class AnnotationIds:
    """The ids in a file."""

    path: Path
    images: Mapping[str, Sequence[tuple[Parts, Any]]]  # by the last part of `file_name`: all of its parts, and the id
    classes: Mapping[str, Any]  # ids by name
    notes: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> AnnotationIds:
        """Raises ResnestError: the file cannot be read, or is no such json."""
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
            images = defaultdict(list)
            for image in content["images"]:
                parts = _parts(image["file_name"])
                images[parts[-1]].append((parts, image["id"]))
            classes = [(str(one["name"]).strip(), one["id"]) for one in content.get("categories", ())]
        except OSError as error:
            raise ResnestError(f"{path} cannot be read: {error.strerror or error}") from None
        except (KeyError, TypeError, AttributeError, IndexError, ValueError, RecursionError) as error:
            why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise ResnestError(f"{path} has no images with file_name and id, as COCO's json has them: {why}") from None
        if len({name for name, _ in classes}) < len(classes):
            raise ResnestError(f"{path} has two categories of one name: which is meant cannot be told")
        return cls(path, images, dict(classes))

    def number(self, pictures: Sequence[Placed]) -> list[Placed]:
        """The pictures that are in the file, with its ids: `file_name` is the end of the picture's path.

        If no picture lies in one of the file's folders, file names alone are compared. A note says that, and another
        one which pictures are left out.

        Raises:
            ResnestError: no picture is in the file; two pictures are the same image of it, or two images fit one.
        """
        found = self._ids_of(pictures)
        missing = [picture for picture, ids in zip(pictures, found, strict=True) if not ids]
        if missing:
            such = f"pictures are not in {self.path}, such as {missing[0].path}"
            if len(missing) == len(pictures):
                raise ResnestError(f"all {len(pictures)} {such}: is it the file of other pictures?")
            self.notes.append(f"{len(missing)} of {len(pictures)} {such}: left out")
        numbered: dict[Any, Placed] = {}
        named = [(picture, ids) for picture, ids in zip(pictures, found, strict=True) if ids]
        for picture, ids in named:
            if len(ids) > 1:
                raise ResnestError(f"{picture.path} is {len(ids)} images of {self.path}: ids {ids[0]} and {ids[1]}")
            other = numbered.setdefault(ids[0], picture)
            if other.stem != picture.stem:
                raise ResnestError(f"{other.path} and {picture.path} are both the image {ids[0]} of {self.path}")
        return [picture._replace(number=ids[0]) for picture, ids in named]

    def renumber(self, card: Card) -> Card:
        """The card with the file's ids of its classes; those that the file does not have get unused ones.

        Raises:
            ResnestError: the file has none of them.
        """
        names = card.class_names
        own = dict(zip(names, getattr(card, "category_ids", ()), strict=True))
        if not self.classes:
            return card  # COCO's lists of test images
        unknown = [name for name in names if name not in self.classes]
        if len(unknown) == len(names):
            raise ResnestError(
                f"{self.path} has none of the model's classes: it has {_some([*self.classes])}, and the model"
                f" {_some(names)}"
            )
        most = max([*own.values(), *(key for key in self.classes.values() if isinstance(key, int))])
        spare = {name: most + place for place, name in enumerate(unknown, 1)}
        if unknown:
            self.notes.append(
                f"{self.path} does not have the classes {_some(unknown)}: what is found of them has ids from {most + 1}"
                " on"
            )
        ids = tuple(self.classes.get(name, spare.get(name)) for name in names)
        return card if ids == tuple(own.values()) else replace(card, category_ids=ids)  # type: ignore[call-arg]

    def _ids_of(self, pictures: Sequence[Placed]) -> list[list[Any]]:
        """For each picture the ids of the images that fit; of those whose whole path fits, the longest."""
        whole, by_name, in_folder = [], [], False
        for picture in pictures:
            parts = Path(os.path.abspath(picture.path)).parts
            named = self.images.get(parts[-1], ())
            fitting = [(len(own), key) for own, key in named if parts[-len(own) :] == own]
            longest = max((count for count, _ in fitting), default=0)
            whole.append([key for count, key in fitting if count == longest])
            by_name.append([key for _, key in named])
            in_folder |= longest > 1
        if in_folder or all(map(bool, whole)) or sum(map(bool, by_name)) == sum(map(bool, whole)):
            return whole
        self.notes.append(f"the folders in {self.path} differ from the pictures': compared by file names alone")
        return by_name


def _parts(name: str) -> Parts:
    """Of a path as any system writes it, without `.` and the root."""
    parts = tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
    return parts[-1:] if ".." in parts else parts


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
