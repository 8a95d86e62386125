"""labelme: one json of shapes for each picture (labelme/label_file.py); AnyLabeling and X-AnyLabeling write the same.

    samples = read_labelme(Path("photos"))        # photos/a.jpg, photos/a.json

Polygons, circles and masks are outlines, rectangles are boxes without one. Shapes of one label and one group_id are
one object, as in labelme's own converters. Points and lines are no objects. A picture without a json is not annotated.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.data.formats import DatasetHandle
from resnest.detection.data import DetectionSamples
from resnest.detection.formats.collector import (
    LEFT_OUT,
    Collector,
    Corners,
    Polygons,
    Tally,
    ellipse,
    finite,
    notes_of,
    outline_corners,
)
from resnest.detection.formats.finding import by_part, with_suffix
from resnest.detection.formats.marks import holds_kind, json_of_kind, kind_of
from resnest.detection.formats.pictures import Size, below, common_root, upright_size
from resnest.errors import ResnestError
from resnest.runtime import rle
from resnest.runtime.band_files import PICTURES as SUFFIXES
from resnest.runtime.decode import BadImage, refusing

FOLDERS = (".", "annotations", "Annotations", "labels", "label", "json", "jsons", "labelme", "ann")
PICTURES = ("images", "JPEGImages", "img", "imgs")  # beside the folder of the json files, or in it
LINES = ("point", "points", "line", "linestrip")
STALE = (
    "json file contains another picture's name than its own, which counts",
    "json files contain another picture's name than their own, which counts",
)
IGNORED = "__ignore__"  # labelme's converters leave this label out


@dataclass
class Shape:
    """One part of an object."""

    box: Corners
    polygon: list[float] | None = None
    mask: NDArray[np.bool_] | None = None  # (H, W) within the box
    difficult: bool = False  # X-AnyLabeling


def find_labelme(path: Path, task: str | None = None) -> DatasetHandle | None:
    """json files of labelme beside pictures, or in a folder of their own; optionally in folders named by part."""
    if path.is_file():
        return DatasetHandle("labelme", str(path), unsplit=lambda: read_labelme(path)) if _is_labelme(path) else None

    def holds(folder: Path) -> bool:
        return any(holds_kind(folder / name, "labelme") for name in FOLDERS)

    return by_part("labelme", path, holds, read_labelme)


def _is_labelme(path: Path) -> bool:
    return path.suffix.lower() == ".json" and kind_of(path) == "labelme"


def _files_in(folder: Path) -> list[Path]:
    return next((files for name in FOLDERS if (files := json_of_kind(folder / name, "labelme"))), [])


def read_labelme(path: Path) -> DetectionSamples:
    """The json files of a folder, or one of them. Raises ResnestError, with the file and the shape."""
    files = [path] if path.is_file() else _files_in(path)
    records = [_load(file) for file in files]
    stems, tally = {file.stem for file in with_suffix(files[0].parent, ".json")}, Tally()
    pictures = [
        _picture_of(file, str(record.get("imagePath") or ""), stems, tally)
        for file, record in zip(files, records, strict=True)
    ]
    _check_pictures(files, records, pictures)
    root = common_root(pictures)
    collector = Collector(path)
    for file, record, picture in zip(files, records, pictures, strict=True):
        image = collector.image(below(root, picture), _size(file, record, picture))
        for (label, _), shapes in _objects(file, record["shapes"], tally).items():
            box, outline = _together(shapes, f"{file}: {label}", collector.size(image))
            collector.add(image, label, box=box, outline=outline, ignored=any(shape.difficult for shape in shapes))
            if len(shapes) > 1:
                tally["object is several shapes with one group_id", "objects are several shapes with one group_id"] += 1
    if path.is_dir():
        alone = {file for file in with_suffix(root, *SUFFIXES)} - set(pictures)
        tally["image without a json file is left out", "images without a json file are left out"] = len(alone)
        unread = len(with_suffix(files[0].parent, ".json")) - len(files)
        tally["json file is not labelme's and is not read", "json files are not labelme's and are not read"] = unread
    return collector.done(root, notes_of(tally))


def _check_pictures(files: Sequence[Path], records: Sequence[dict[str, Any]], pictures: Sequence[Path]) -> None:
    """Raises ResnestError if two files are of one picture, or no picture is there."""
    seen: dict[Path, Path] = {}
    for file, picture in zip(files, pictures, strict=True):
        if (before := seen.setdefault(picture, file)) != file:
            raise ResnestError(f"{before} and {file.name} are both of the picture {picture.name}: leave one of them")
    if not any(picture.is_file() for picture in pictures):
        inside = " (the json file contains it: save it as a file)" if records[0].get("imageData") else ""
        raise ResnestError(f"{files[0]}: its picture {pictures[0]} is not there{inside}")


def _objects(file: Path, items: list[Any], tally: Tally) -> dict[tuple[str, Any], list[Shape]]:
    """The shapes of each object, by its label and group. Raises ResnestError."""
    objects: dict[tuple[str, Any], list[Shape]] = {}
    for number, item in enumerate(items, 1):
        label = str(item.get("label") or "").strip() if isinstance(item, dict) else ""
        where = f"{file}: shape {number} ({label or 'without a label'})"
        if not label:
            raise ResnestError(f"{where}: needed are label, points and shape_type")
        if label == IGNORED:
            tally[f"shape called {IGNORED} is left out", f"shapes called {IGNORED} are left out"] += 1
        elif (shape := _shape(item, where)) is None:
            tally[LEFT_OUT] += 1
        else:
            group = item.get("group_id")
            objects.setdefault((label, f"shape {number}" if group is None else ("group", group)), []).append(shape)
    return objects


def _together(shapes: Sequence[Shape], where: str, size: Size) -> tuple[Corners, Polygons | rle.RLE | None]:
    """Box and outline of an object; no outline if a part of it has none. Raises ResnestError."""
    corners = np.array([shape.box for shape in shapes])
    (left, top), (right, bottom) = corners[:, :2].min(0).tolist(), corners[:, 2:].max(0).tolist()
    box = (left, top, right, bottom)
    if all(shape.polygon for shape in shapes):
        return box, [shape.polygon for shape in shapes if shape.polygon]
    masks = [shape for shape in shapes if shape.mask is not None]
    if not masks or len(masks) + sum(shape.polygon is not None for shape in shapes) < len(shapes):
        return box, None
    if len(masks) < len(shapes):
        raise ResnestError(f"{where}: a group of masks and polygons: draw all its parts in one way")
    width, height = size
    whole = np.zeros((height, width), bool)
    for shape in masks:
        x, y = (int(number) for number in shape.box[:2])
        inside = shape.mask[max(0, -y) : height - y, max(0, -x) : width - x]  # type: ignore[index]
        whole[max(0, y) : max(0, y) + inside.shape[0], max(0, x) : max(0, x) + inside.shape[1]] |= inside
    if not whole.any():
        raise ResnestError(f"{where}: its mask lies outside the picture of {width} x {height} pixels")
    return box, rle.encode(whole)


def _load(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ResnestError(f"{file} cannot be read as json ({error})") from None
    if not isinstance(record, dict) or not isinstance(record.get("shapes"), list):
        raise ResnestError(f"{file} is not labelme's: it has no list of shapes")
    record["imageData"] = bool(record.get("imageData"))  # the whole picture
    return record


def _picture_of(file: Path, name: str, stems: Collection[str], tally: Tally) -> Path:
    """The picture of a json: as it names it, relative to itself; else of that name nearby; else of its own name.

    A copied or renamed json often names its first picture; where that has a json too, the picture of its own name
    counts.

    Args:
        stems: of all json files.

    Raises:
        ResnestError: it names one picture and is called as another, which no other json names.
    """
    name = name.replace("\\", "/")
    last = name.rsplit("/", 1)[-1]
    home = file.parent
    places = [home, *(home / folder for folder in PICTURES), *(home.parent / folder for folder in PICTURES)]
    called = [place / f"{file.stem}{suffix}" for place in (*places, home.parent) for suffix in SUFFIXES]
    choices = [home / name, *(place / last for place in places)] if last else []
    named = next((choice for choice in choices if choice.is_file()), None)
    own = next((choice for choice in called if choice.is_file()), None)
    if named and own and named.stem != own.stem:
        if named.stem not in stems:
            raise ResnestError(
                f"{file}: is it of {named.name}, which it names, or of {own.name}? Move the other one to another folder"
            )
        tally[STALE] += 1
        named = own
    return Path(os.path.abspath(named or own or (choices or called)[0]))  # without `..`


def _size(file: Path, record: dict[str, Any], picture: Path) -> tuple[int, int]:
    """Of the upright picture, which labelme shows and measures."""
    sides: list[Any] = [record.get("imageWidth"), record.get("imageHeight")]
    if finite(sides) and min(sides) >= 1:
        return int(sides[0]), int(sides[1])
    try:
        return upright_size(picture)
    except BadImage as error:
        raise ResnestError(f"{file} has no imageWidth and imageHeight, and its picture is no help: {error}") from None


def _shape(item: dict[str, Any], where: str) -> Shape | None:
    """None for a point or a line. Raises ResnestError."""
    kind = item.get("shape_type") or "polygon"
    if kind in LINES:
        return None
    points = item.get("points")
    if not isinstance(points, list) or not all(isinstance(point, list) and finite(point, 2) for point in points):
        raise ResnestError(f"{where}: points are not pairs of finite numbers")
    if kind == "rotation":
        raise ResnestError(f"{where} is a rotated box, which detectors here do not have: draw polygons or rectangles")
    flat, difficult = [float(number) for point in points for number in point], item.get("difficult") is True
    if kind == "rectangle" and len(points) >= 2:
        return Shape(outline_corners([flat]), difficult=difficult)
    if kind == "circle" and len(points) == 2:
        radius = math.dist(points[0], points[1])
        flat = ellipse(flat[0], flat[1], radius, radius)
        return Shape(outline_corners([flat]), flat, difficult=difficult)
    if kind == "mask" and len(points) == 2:
        return _mask(item, points, where)
    if kind == "polygon" and len(points) >= 3:
        return Shape(outline_corners([flat]), flat, difficult=difficult)
    raise ResnestError(f"{where}: a {kind} of {len(points)} points is no object: draw it again, or delete it")


def _mask(item: dict[str, Any], points: list[list[float]], where: str) -> Shape:
    """A mask is a PNG of 0 and 1, from the first point to the second one, which is included."""
    try:
        content = base64.b64decode(item["mask"], validate=True)
        with refusing(where, ("PNG",)), Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            mask = np.array(image.convert("L")) > 0 if image.mode not in ("1", "P") else np.array(image) > 0
    except (KeyError, TypeError, ValueError) as error:
        raise ResnestError(f"{where}: its mask cannot be read ({error})") from None
    left, top = (round(number) for number in points[0])
    height, width = mask.shape
    if abs(points[1][0] - points[0][0] + 1 - width) > 1 or abs(points[1][1] - points[0][1] + 1 - height) > 1:
        raise ResnestError(f"{where}: its mask of {width} x {height} pixels does not lie between its points {points}")
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        raise ResnestError(f"{where}: its mask has no pixel")
    inner = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    x, y = left + int(columns[0]), top + int(rows[0])
    return Shape((x, y, x + inner.shape[1], y + inner.shape[0]), mask=inner, difficult=item.get("difficult") is True)
