"""metadata.jsonl of the datasets library's ImageFolder, with objects: a line for each picture.

    {"file_name": "0001.png", "objects": {"bbox": [[302.0, 109.0, 73.0, 52.0]], "categories": [0]}}

Boxes are COCO's x, y, width, height in pixels (datasets documentation, "Create an image dataset"). Classes are text, or
numbers, whose names a classes.json or classnames.txt beside the file has.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from resnest.data.class_names import read_class_names
from resnest.data.formats import DatasetHandle, handle_of_folders
from resnest.data.parts import choose_folders
from resnest.detection.data import DetectionSamples
from resnest.detection.formats.collector import UNREADABLE, Collector, Tally, finite, notes_of
from resnest.detection.formats.finding import by_part
from resnest.detection.formats.pictures import read_sizes
from resnest.errors import ResnestError

NAME = "metadata.jsonl"
BOXES = ("bbox", "bboxes", "boxes")
CLASSES = ("categories", "category", "label", "labels", "category_id")
HEAD = 64 * 2**10

Row = dict[str, Any]


def find_metadata(path: Path, task: str | None = None) -> DatasetHandle | None:
    """The file in a folder, with folders of parts in its names, or in folders that are named by part."""
    if path.is_file():
        return find_metadata(path.parent) if path.name == NAME and _holds(path.parent) else None
    if not _holds(path):
        return by_part("metadata", path, _holds, read_metadata)
    rows = _rows(path / NAME)
    folders: dict[str, list[Row]] = {}
    for row in rows:
        folder, sign, _ = str(row["file_name"]).replace("\\", "/").partition("/")
        folders.setdefault(folder if sign else "", []).append(row)
    parts = choose_folders(set(folders) - {""}, str(path))
    if not parts or not parts.validation:
        return DatasetHandle("metadata", str(path), unsplit=lambda: read_metadata(path))
    if alone := folders.get(""):
        parts = replace(parts, others=(*parts.others, str(alone[0]["file_name"])))
    return handle_of_folders("metadata", path, parts, lambda name: partial(read_metadata, path, folders[name]))


def _holds(folder: Path) -> bool:
    """Whether the first lines have objects; a file of captions or labels is not meant."""
    try:
        with (folder / NAME).open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return False
    return b'"objects"' in head and any(f'"{key}"'.encode() in head for key in BOXES)


def _rows(file: Path) -> list[Row]:
    try:
        lines = file.read_bytes().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ResnestError(f"{file} cannot be read ({error})") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or not row.get("file_name"):
            raise ResnestError(f"{file}, line {number} is no json object with a file_name")
        rows.append({**row, "": number})
    return rows


def read_metadata(folder: Path, rows: list[Row] | None = None) -> DetectionSamples:
    """The pictures of all lines, or of some. Raises ResnestError, with the line."""
    file = folder / NAME
    rows = _rows(file) if rows is None else rows
    names = [str(row["file_name"]).replace("\\", "/") for row in rows]
    sizes = read_sizes(folder, names)
    if not any(sizes):
        raise ResnestError(f"{file}: there is no picture {names[0] if names else ''} in {folder}")
    found = [_objects(row, f"{file}, line {row['']}") for row in rows]
    known = read_class_names(folder) or read_class_names(folder.parent)
    labels = {label for objects in found for _, label in objects}
    numbers = {label for label in labels if isinstance(label, int)}
    collector, tally = Collector(file, {number: known.get(str(number), str(number)) for number in numbers}), Tally()
    if numbers and numbers != labels:
        raise ResnestError(
            f"{file}: some classes are numbers, others names: {min(numbers)} and {min(labels - numbers, key=str)!r}"
        )
    for objects, name, size in zip(found, names, sizes, strict=True):
        if size is None:
            tally[UNREADABLE] += 1
            continue
        image = collector.image(name, size)
        for (x, y, width, height), label in objects:
            collector.add(image, label, box=(x, y, x + width, y + height))
    unnamed = bool(numbers) and not known
    notes = ["classes are called by their numbers: classes.json may have names"] if unnamed else []
    return collector.done(folder, [*notes, *notes_of(tally)])


def _objects(row: Row, where: str) -> list[tuple[list[Any], str | int]]:
    """Box and class of each object, from lists for each key or a list of objects."""
    objects = row.get("objects") or {}
    if isinstance(objects, list):
        objects = {key: [item.get(key) for item in objects] for key in dict.fromkeys(k for o in objects for k in o)}
    boxes: Any = next((objects[key] for key in BOXES if key in objects), None)
    kinds = [key for key in CLASSES if key in objects]
    if not boxes:
        return []
    if not kinds:
        raise ResnestError(f"{where}: objects have no {' or '.join(CLASSES[:2])}")
    labels = objects[kinds[0]]
    if not isinstance(boxes, list) or not isinstance(labels, list) or len(boxes) != len(labels):
        raise ResnestError(f"{where}: objects have lists of different lengths, for boxes and {kinds[0]}")
    for box, label in zip(boxes, labels, strict=True):
        if not isinstance(box, list) or not finite(box, 4):
            raise ResnestError(f"{where}: bbox {json.dumps(box)[:60]} is not four finite numbers x, y, width, height")
        if isinstance(label, bool) or not isinstance(label, str | int) or not str(label).strip():
            raise ResnestError(f"{where}: {kinds[0]} {json.dumps(label)[:60]} is neither a name nor a number")
    texts = [label if isinstance(label, int) else label.strip() for label in labels]
    return list(zip(boxes, texts, strict=True))
