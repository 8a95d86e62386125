"""Formats of data sets with objects, and the doctor's look at them: boxes, masks and ids that do not add up.

for line in object_problems("train", samples): print(line)
for line in object_notes(train, val): print(line)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resnest.data.checks import MIN_IMAGES, DatasetReport, Inspection
from resnest.data.folders import ROBOFLOW, find_parts, holds_xml, list_coco
from resnest.data.formats import DatasetHandle, Finder, handle_of_folders
from resnest.data.long_tail import USUAL_THRESHOLD, describe_tail, repeat_factors
from resnest.data.parts import TITLES
from resnest.detection.card import DetectionPreprocess
from resnest.detection.coco import read_coco
from resnest.detection.data import DetectionSamples, ObjectTable, clip, has_area
from resnest.detection.federated import GROUPS
from resnest.detection.formats.coco_files import is_coco
from resnest.detection.formats.finding import by_part, of_files
from resnest.detection.formats.registry import TOOLS
from resnest.detection.segmentations import BAD
from resnest.detection.units import outline_box
from resnest.detection.voc import read_voc, xml_stems
from resnest.detection.voc_lists import handle_of_lists, read_list
from resnest.detection.voc_origin import FORMATS, origin_of
from resnest.figures import counted

# --- The formats of data sets with objects: COCO json and Pascal VOC xml ---

VOC_FOLDERS = ("Annotations", "annotations", "labels", ".")  # the third is FiftyOne's


def find_coco(path: Path, task: str | None = None) -> DatasetHandle | None:
    """A .json file, or one per split: in `annotations`, or in folders named by split."""
    if path.is_file():
        return DatasetHandle("coco", str(path), unsplit=partial(read_coco, path)) if is_coco(path) else None
    if names := [name for name in list_coco(path) if is_coco(path / name)]:
        return of_files("coco", path, names, read_coco)

    def holds(folder: Path) -> bool:
        return (folder / ROBOFLOW).is_file() and is_coco(folder / ROBOFLOW)

    return by_part("coco", path, holds, lambda folder: read_coco(folder / ROBOFLOW))


def find_voc(path: Path, task: str | None = None, *, format: str = "voc") -> DatasetHandle | None:
    """xml files in `Annotations`, with splits listed in ImageSets/Main, or beside images, optionally by split."""
    if path.is_file():
        return None
    folder = _xml_folder(path)
    if folder is None:
        return _voc_by_part(path, format)
    first, said = origin_of([folder], FORMATS[format])

    def read(listed: Path | None) -> DetectionSamples:
        return read_voc(folder, read_list(listed, xml_stems(folder).__contains__) if listed else None, first=first)

    return handle_of_lists(path, path / "ImageSets" / "Main", read, format=format, notes=said)


def _voc_by_part(path: Path, format: str) -> DatasetHandle | None:
    """xml files in folders that are parts, which all count pixels alike."""
    parts = find_parts(path, lambda name: _xml_folder(path / name) is not None)
    if parts is None:
        return None
    names = [name for part in TITLES if (name := getattr(parts, part))]
    folders = {name: folder for name in names if (folder := _xml_folder(path / name))}
    first, said = origin_of(list(folders.values()), FORMATS[format])
    handle = handle_of_folders(format, path, parts, lambda name: partial(read_voc, folders[name], first=first))
    return replace(handle, notes=(*handle.notes, *said))


def _xml_folder(home: Path) -> Path | None:
    return next((folder for name in VOC_FOLDERS if holds_xml(folder := home / name)), None)


FINDERS = (
    Finder("coco", ("detection",), find_coco, suffixes=(".json",)),
    *(Finder(format, ("detection",), partial(find_voc, format=format)) for format in FORMATS),
    *TOOLS,
)


BEYOND = 1.0  # pixels that a box may exceed its image by: some data sets count from 1
MISSED = 2.0  # pixels between a box and the outermost of its mask: some count from 1, some round
SMALL, LARGE = 32**2, 96**2  # COCO's sizes of objects, square pixels
USUAL_LIMIT = 100  # detections an image (DetectorSpec.max_detections)
MOST_NAMED = 8
MUCH_IGNORED = 0.25  # share of objects: of VOC2007's a fifth are difficult, of COCO's one in a hundred is a crowd


class DetectionInspection(Inspection):
    """Checks of images with objects."""

    samples: DetectionSamples

    def add_to(self, report: DatasetReport, val: DetectionInspection) -> None:
        train, other = self.samples, val.samples
        report.problems += [*unit_problems(train, other), *class_problems(train, other)]
        report.problems += [*object_problems("train", train), *object_problems("val", other)]
        report.notes += object_notes(train, other)


def unit_problems(train: DetectionSamples, val: DetectionSamples) -> Iterator[str]:
    """Boxes that are not corners in pixels: one problem, or one of each split if they differ."""
    found: dict[str, list[str]] = {}
    for split, samples in (("train", train), ("val", val)):
        if misread := samples.objects.misread():
            found.setdefault(misread.advice, []).append(f"{split}: the {samples.objects.counts.sum():,} boxes")
    yield from (f"{', '.join(splits)} {advice}" for advice, splits in found.items())


def object_problems(split: str, samples: DetectionSamples) -> Iterator[str]:
    """Problems of one split; images are not decoded."""
    table = samples.objects
    rows, owners = table.rows(), table.owners()
    yield from ignored_problems(split, samples)
    if not table.misread():  # else every box would be a problem
        yield from _box_problems(split, samples)
    for index in np.flatnonzero(table.segmentations.kinds[rows] == BAD).tolist():
        yield (
            f"{split}: {samples.keys[owners[index]]}: annotation {table.ids[rows[index]]}:"
            f" {table.segmentations.defect(int(rows[index]))}: its outline cannot be used"
        )
    yield from (f"{split}: annotation id {number} occurs {count} times" for number, count in _twice(table.ids[rows]))
    names, times = np.unique(np.array(samples.keys), return_counts=True)
    for index in np.flatnonzero(times > 1).tolist():
        yield f"{split}: {names[index]} is listed {times[index]} times"


def ignored_problems(split: str, samples: DetectionSamples) -> Iterator[str]:
    """Crowds and difficult objects, where they are much of a split or all of a class that is not rare."""
    table = samples.objects
    rows = table.rows()
    crowd, labels = table.crowd[rows], table.labels[rows]
    if len(rows) and crowd.mean() > MUCH_IGNORED:
        yield (
            f"{split}: {crowd.sum():,} of {len(rows):,} objects are crowds (iscrowd) or difficult, which are ignored:"
            " set that to 0 where one object is meant, as of masks that were drawn with CVAT's brush"
        )
        return
    count = len(samples.class_names)
    every, ignored = np.bincount(labels, minlength=count), np.bincount(labels[crowd], minlength=count)
    if names := named(samples.class_names, (every >= MIN_IMAGES) & (every == ignored)):
        yield f"{split}: all objects of {names} are crowds (iscrowd) or difficult, which are ignored"


def _box_problems(split: str, samples: DetectionSamples) -> Iterator[str]:
    """Boxes without an area, beyond their image, or apart from their masks."""
    table = samples.objects
    rows, owners = table.rows(), table.owners()
    boxes, sizes = table.boxes[rows], table.sizes[owners]
    inside = clip(boxes, sizes[:, 0], sizes[:, 1])
    flat, visible = ~has_area(boxes), has_area(inside)
    beyond = np.abs(boxes - inside).max(1, initial=0) > BEYOND

    def name(index: int) -> str:
        return f"{split}: {samples.keys[owners[index]]}: annotation {table.ids[rows[index]]}"

    for index in np.flatnonzero(flat | ~visible | beyond).tolist():
        width, height = sizes[index].tolist()
        what = (
            "has no area"
            if flat[index]
            else f"lies outside the image of {width} x {height}"
            if not visible[index]
            else f"stands out of the image of {width} x {height}"
        )
        yield f"{name(index)}: box {_corners(boxes[index])} {what}{'' if visible[index] else ': left out of training'}"
    for index in np.flatnonzero(table.segmentations.outlined[rows]).tolist():
        width, height = map(int, sizes[index])
        around = outline_box(table.segmentations.get(int(rows[index]), height, width))
        if around is None:
            yield f"{name(index)}: its mask has no pixel"
        elif not flat[index] and (gap := float(np.abs(around - inside[index]).max())) > MISSED:
            yield (
                f"{name(index)}: its mask lies within {_corners(around)}, its box is {_corners(boxes[index])}:"
                f" {gap:.3g} pixels apart"
            )


def class_problems(train: DetectionSamples, val: DetectionSamples) -> Iterator[str]:
    """Classes that only one split has: without training objects they are never detected."""
    learned, measured = train.object_counts() > 0, val.object_counts() > 0
    if names := named(train.class_names, measured & ~learned):
        yield f"only the validation split has objects of {names}: they are never predicted"


def object_notes(train: DetectionSamples, val: DetectionSamples) -> Iterator[str]:
    """Statistics to choose settings by."""
    learned, measured = train.object_counts(), val.object_counts()
    if names := named(train.class_names, (learned > 0) & (measured == 0)):
        yield f"only the training split has objects of {names}: they are not evaluated"
    if names := named(train.class_names, (learned == 0) & (measured == 0)):
        yield f"no split has an object of {names}"
    images = train.counts()
    if names := named(train.class_names, (learned > 0) & (images < MIN_IMAGES)):
        yield f"fewer than {MIN_IMAGES} training images show {names}"
    if train.frequency:
        yield from tail_notes(train)
    for split, samples in (("training", train), ("validation", val)):
        empty = int((~samples.labels.any(1)).sum())
        if empty:
            learn = ": left out of training unless detection.keep_empty is set" if split == "training" else ""
            yield f"{counted(empty, f'{split} image has', f'{split} images have')} no objects{learn}"
    tables = [table for table in (train.objects, val.objects) if len(table)]
    crowds = sum(int(table.crowd[table.rows()].sum()) for table in tables)
    if crowds:
        yield f"{counted(crowds, 'crowd or difficult object', 'crowds or difficult objects')}, ignored"
    outlined = sum(int(table.segmentations.outlined[table.rows()].sum()) for table in tables)
    total = sum(int(table.counts.sum()) for table in tables)
    yield f"{outlined} of {total} objects have masks"
    yield from size_notes(tables)


def tail_notes(train: DetectionSamples) -> Iterator[str]:
    """How long the tail of the classes is, and what repeat-factor sampling would make of it."""
    by_json = ", ".join(f"{train.frequency.count(group):,} {word}" for group, word in GROUPS.items())
    yield f"classes by their frequency in the json: {by_json}; {describe_tail(train.counts())}"
    factors = repeat_factors(*train.marks(), len(train), USUAL_THRESHOLD)
    if often := int((factors > 1).sum()):
        yield (
            f"data.repeat_threshold={USUAL_THRESHOLD} draws {counted(often, 'training image', 'training images')} more"
            f" often than the others, up to {factors.max():.3g} times as often"
        )


def size_notes(tables: Sequence[ObjectTable]) -> Iterator[str]:
    """Objects per image, and their sizes."""
    counts = np.concatenate([table.counts for table in tables])
    text = f"objects an image: median {np.median(counts):g}, {counts.max()} at most"
    yield text + (f": raise detector.max_detections above {USUAL_LIMIT}" if counts.max() > USUAL_LIMIT else "")
    usable = [table.trainable_mask() for table in tables]
    areas = np.concatenate([table.areas[table.rows()][chosen] for table, chosen in zip(tables, usable, strict=True)])
    small, large = float((areas < SMALL).mean()), float((areas > LARGE).mean())
    yield f"objects by area as COCO has it: {small:.0%} small, {1 - small - large:.0%} medium, {large:.0%} large"
    sides = np.concatenate([_sides(table)[chosen] for table, chosen in zip(tables, usable, strict=True)])
    rule = DetectionPreprocess()
    scaled = sides * np.concatenate(
        [_scales(table, rule)[table.owners()][chosen] for table, chosen in zip(tables, usable, strict=True)]
    )
    yield (
        f"side of an object, the root of its box's area: {_spread(sides)} pixels; {_spread(scaled)} with the short side"
        f" of images at {rule.short} (see detector.anchor_sizes, and detection.short for objects that are too small)"
    )


def _sides(table: ObjectTable) -> NDArray[np.float64]:
    """Sides of each box in its image, one per row of `rows()`; 0 of a box with a negative width or height."""
    sizes = table.sizes[table.owners()]
    inside = clip(table.boxes[table.rows()], sizes[:, 0], sizes[:, 1]).astype(np.float64)
    wide, high = np.maximum(inside[:, 2:] - inside[:, :2], 0).T
    sides: NDArray[np.float64] = np.sqrt(wide * high)
    return sides


def _scales(table: ObjectTable, rule: DetectionPreprocess) -> NDArray[np.float64]:
    """The resize factor of each image."""
    return np.array([rule.scaled_size(width, height)[0] / width for width, height in table.sizes.tolist()])


def _spread(values: NDArray[np.float64]) -> str:
    return f"{values.min():.0f} to {values.max():.0f}, median {np.median(values):.0f}"


def _twice(numbers: NDArray[np.int64]) -> list[tuple[int, int]]:
    values, counts = np.unique(numbers, return_counts=True)
    return [(int(value), int(count)) for value, count in zip(values, counts, strict=True) if count > 1]


def named(names: Sequence[str], chosen: NDArray[np.bool_]) -> str:
    """The first few names, and the number of the others."""
    some = [names[index] for index in np.flatnonzero(chosen).tolist()]
    left = len(some) - MOST_NAMED
    more = f" and {left} more class{'es' * (left > 1)}" if left > 0 else ""
    return ", ".join(some[:MOST_NAMED]) + more


def _corners(box: NDArray[np.floating]) -> str:
    return "(" + ", ".join(f"{float(value):g}" for value in box) + ")"
