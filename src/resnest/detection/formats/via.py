"""VGG Image Annotator 1 and 2: one json of regions for all pictures, a project or an export; makesense writes it too.

    samples = read_via(Path("balloon/train/via_region_data.json"))

The class is the region attribute that regions have; of several, the one called class, label, name, category or type.
Pictures have no sizes in it: these are read from the files, upright as browsers show them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resnest.data.formats import DatasetHandle
from resnest.detection.data import DetectionSamples
from resnest.detection.formats.collector import (
    LEFT_OUT,
    UNREADABLE,
    Collector,
    Corners,
    Tally,
    ellipse,
    finite,
    notes_of,
    outline_corners,
)
from resnest.detection.formats.finding import by_part_files, of_files
from resnest.detection.formats.marks import json_of_kind, kind_of
from resnest.detection.formats.pictures import find_pictures, read_sizes
from resnest.errors import ResnestError

CLASS_NAMES = ("class", "label", "name", "category", "type")  # of attributes, in any case
ONE_CLASS = "object"  # of regions without attributes, as in the balloons of Mask R-CNN's tutorial
LINES = ("point", "polyline")


def find_via(path: Path, task: str | None = None) -> DatasetHandle | None:
    """A json of VIA; in a folder, or in folders in it that are named by part."""
    if path.is_file():
        is_via = path.suffix.lower() == ".json" and kind_of(path) == "via"
        return DatasetHandle("via", str(path), unsplit=lambda: read_via(path)) if is_via else None
    if found := [file for folder in (path, path / "annotations") for file in json_of_kind(folder, "via")]:
        return of_files("via", path, [file.relative_to(path).as_posix() for file in found], read_via)
    return by_part_files("via", path, lambda folder: json_of_kind(folder, "via"), read_via)


def read_via(path: Path) -> DetectionSamples:
    """All pictures of the file. Raises ResnestError, with the picture and the region."""
    entries = list(_entries(path))
    attribute, notes = _class_attribute(path, entries)
    pictures = find_pictures(path, [str(entry["filename"]) for entry in entries])
    sizes = read_sizes(pictures.root, pictures.names)
    collector, tally = Collector(path), Tally()
    for entry, name, size in zip(entries, pictures.names, sizes, strict=True):
        if size is None:
            tally[UNREADABLE] += 1
            continue
        image = collector.image(name, size)
        for number, region in enumerate(_regions(entry), 1):
            where = f"{path}: {name}, region {number}"
            shape = _shape(region, where)
            if shape is None:
                tally[LEFT_OUT] += 1
                continue
            box, polygon = shape
            label = _label(region, attribute, where) if attribute else ONE_CLASS
            collector.add(image, label, box=box, outline=[polygon] if polygon else None)
    return collector.done(pictures.root, [*pictures.notes, *notes, *notes_of(tally)])


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ResnestError(f"{path} cannot be read as json ({error})") from None
    metadata = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
    if not isinstance(metadata, dict) or not metadata:
        raise ResnestError(f"{path} lists no picture: it is not VIA's json")
    for key, entry in metadata.items():
        if not isinstance(entry, dict) or not entry.get("filename"):
            raise ResnestError(f"{path}: {key} has no filename: it is not VIA's json")
        if not isinstance(entry.get("regions", []), list | dict):
            raise ResnestError(f"{path}: {key}: regions is neither a list nor a mapping")
        yield entry


def _regions(entry: dict[str, Any]) -> list[Any]:
    regions = entry.get("regions") or []
    return list(regions.values()) if isinstance(regions, dict) else regions  # VIA 1 and makesense: by number


def _class_attribute(path: Path, entries: list[dict[str, Any]]) -> tuple[str, list[str]]:
    """The attribute that is the class, or "", and a note. Raises ResnestError for several that could be."""
    values: dict[str, set[str]] = {}
    for entry in entries:
        for region in _regions(entry):
            attributes = region.get("region_attributes") if isinstance(region, dict) else None
            for name, value in (attributes or {}).items():
                if value not in ("", None, {}):
                    values.setdefault(name, set()).add(json.dumps(value, sort_keys=True))
    if not values:
        return "", [f"regions have no attributes: all are of one class, {ONE_CLASS!r}"]
    if len(values) == 1:
        return next(iter(values)), []
    named = [name for word in CLASS_NAMES for name in values if name.strip().lower() == word]
    if not named:
        raise ResnestError(
            f"{path}: regions have the attributes {', '.join(sorted(values))}: call the one that is the class 'class'"
        )
    return named[0], [f"the class is the attribute {named[0]!r} of {', '.join(sorted(values))}"]


def _label(region: dict[str, Any], attribute: str, where: str) -> str:
    """Text, or the one option that is ticked."""
    value = (region.get("region_attributes") or {}).get(attribute)
    if isinstance(value, dict):
        ticked = [name for name, on in value.items() if on]
        if len(ticked) > 1:
            raise ResnestError(f"{where}: {attribute} is {', '.join(ticked)}: an object has one class")
        value = ticked[0] if ticked else None
    label = "" if value is None else str(value).strip()
    if not label:
        raise ResnestError(f"{where} has no {attribute}, the attribute that is the class")
    return label


def _shape(region: Any, where: str) -> tuple[Corners, list[float] | None] | None:
    """Box and polygon; None for a point or a line. Raises ResnestError."""
    shape = region.get("shape_attributes") if isinstance(region, dict) else None
    if not isinstance(shape, dict):
        raise ResnestError(f"{where} has no shape_attributes")
    kind = shape.get("name")
    if kind in LINES:
        return None
    polygon: list[float] | None = None
    try:
        if kind == "rect":
            x, y, width, height = _numbers(shape, "x", "y", "width", "height")
            return (x, y, x + width, y + height), None
        if kind == "polygon":
            xs, ys = shape["all_points_x"], shape["all_points_y"]
            if len(xs) == len(ys) >= 3 and finite([*xs, *ys]):
                polygon = [float(number) for point in zip(xs, ys, strict=True) for number in point]
        elif kind == "circle":
            x, y, radius = _numbers(shape, "cx", "cy", "r")
            polygon = ellipse(x, y, radius, radius)
        elif kind == "ellipse":
            x, y, across, up = _numbers(shape, "cx", "cy", "rx", "ry")
            polygon = ellipse(x, y, across, up, float(shape.get("theta") or 0))
    except (KeyError, TypeError, ValueError):
        polygon = None
    if polygon is None:
        raise ResnestError(f"{where}: {json.dumps(shape)[:80]} is no rect, polygon, circle or ellipse with its numbers")
    return outline_corners([polygon]), polygon


def _numbers(shape: dict[str, Any], *keys: str) -> list[float]:
    numbers = [shape[key] for key in keys]
    if not finite(numbers):
        raise ValueError
    return [float(number) for number in numbers]
