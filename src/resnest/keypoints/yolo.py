"""YOLO-pose: a label file for each picture, with a line for each object: class, box, then its points.

    handle = find_yolo(Path("hands"))             # hands/data.yaml with kpt_shape: [21, 3]

All numbers but the class are fractions of the upright picture: centre, width and height of the box, then x and y of
each point, with `kpt_shape: [K, 3]` and its visibility 0, 1 or 2. With `[K, 2]` a point at 0 0, or below 0, is not
annotated (Ultralytics). `flip_idx` has the number of each point in a mirrored picture, `kpt_names` may name them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from resnest.data.formats import DatasetHandle
from resnest.data.parts import VAL_KEYS, note_of_test
from resnest.data.samples import clean_name
from resnest.data.stores import FolderStore
from resnest.detection.formats.pictures import below, common_root, read_sizes
from resnest.detection.formats.yolo_files import YoloFiles, label_of, list_pictures, of_yaml, read_label, yaml_in
from resnest.errors import ResnestError
from resnest.figures import counted
from resnest.keypoints.coco import VISIBLE, areas_of, mend_boxes, outside_notes, usual_sigmas
from resnest.keypoints.data import KeypointSamples, PeopleTable, PictureTable
from resnest.keypoints.points import PERSON_SIGMAS, PointLayout, mirror_pairs

FORMAT = "yolo-pose"
FARTHEST = 2.0  # what is farther is no fraction
YAML = (".yaml", ".yml")


@dataclass(frozen=True)
class PoseFiles:
    """A data set's files, and what its yaml says of points."""

    files: YoloFiles
    layout: PointLayout
    numbers: int  # of a point: 2 or 3
    notes: tuple[str, ...]


def find_yolo(path: Path, task: str | None = None) -> DatasetHandle | None:
    """A yaml with kpt_shape, or a folder with one. Raises ResnestError for one that makes no sense."""
    file = (path if path.suffix.lower() in YAML else None) if path.is_file() else yaml_in(path)
    content = _load(file) if file else {}
    if file is None or "kpt_shape" not in content:
        return None
    pose = _pose(file, content)
    sources = pose.files.sources
    val = next((name for name in VAL_KEYS if name in sources), None)
    train, test = sources.get("train"), sources.get("test")
    if not val and not train:
        raise ResnestError(f"{file} names no images: neither train nor val")
    if not val:
        return DatasetHandle(FORMAT, str(file), unsplit=lambda: read_yolo(pose, train or []))
    return DatasetHandle(
        FORMAT,
        str(file),
        train=(lambda: read_yolo(pose, train)) if train else None,
        val=lambda: read_yolo(pose, sources[val]),
        test=(lambda: read_yolo(pose, test)) if test else None,
        notes=(note_of_test("test"),) if val == "test" else (),
    )


def _load(file: Path) -> Mapping[str, Any]:
    try:
        content = yaml.load(file.read_bytes(), Loader=yaml.BaseLoader)
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        return {}  # said by `of_yaml` where it matters
    return content if isinstance(content, dict) else {}


def _pose(file: Path, content: Mapping[str, Any]) -> PoseFiles:
    shape = content["kpt_shape"]
    if not isinstance(shape, list) or len(shape) != 2 or not all(str(side).isdecimal() for side in shape):
        raise ResnestError(f"{file}: kpt_shape {shape} is not the number of points, and 2 or 3: [17, 3]")
    count, numbers = map(int, shape)
    if count < 1 or numbers not in (2, 3):
        raise ResnestError(f"{file}: kpt_shape {shape}: expected one point or more, and 2 or 3 numbers of each")
    files = of_yaml(file, points=True)
    notes: list[str] = []
    names = _names(content, count, files, notes, file)
    layout = PointLayout.of(names)
    if not set(names) <= set(PERSON_SIGMAS):
        notes.append(usual_sigmas())
    pairs = _pairs(content, names, notes, file)
    layout = PointLayout(names=names, sigmas=layout.sigmas, pairs=pairs)
    return PoseFiles(files, layout, numbers, tuple(notes))


def _names(content: Mapping[str, Any], count: int, files: YoloFiles, notes: list[str], file: Path) -> tuple[str, ...]:
    """Names of points: of the yaml, of COCO's persons, or numbers."""
    given = content.get("kpt_names")
    if isinstance(given, dict):  # by class
        given = next(iter(given.values()), None)
    if isinstance(given, list):
        if len(given) != count:
            raise ResnestError(f"{file}: kpt_names has {len(given)} names, and kpt_shape {count} points")
        try:
            return tuple(clean_name(name) for name in given)
        except ValueError as error:
            raise ResnestError(f"{file}: kpt_names: {error}") from None
    if count == len(PERSON_SIGMAS) and list((files.names or {}).values()) == ["person"]:
        notes.append("17 points of persons without names are taken for COCO's")
        return tuple(PERSON_SIGMAS)
    notes.append("points have no names (kpt_names), and are called by their numbers")
    return tuple(str(number + 1) for number in range(count))


def _pairs(
    content: Mapping[str, Any], names: Sequence[str], notes: list[str], file: Path
) -> tuple[tuple[int, int], ...] | None:
    """By flip_idx, else by names; None: not known. Raises ResnestError for a flip_idx that has no pairs."""
    order = content.get("flip_idx")
    if not order:
        if found := mirror_pairs(names):
            return found
        notes.append("no flip_idx, so nothing is mirrored: set it, or keypoints.flip_pairs")
        return None
    if not isinstance(order, list) or sorted(map(str, order)) != sorted(str(number) for number in range(len(names))):
        raise ResnestError(f"{file}: flip_idx must have each number from 0 to {len(names) - 1} once, and has {order}")
    places = list(map(int, order))
    odd = next((one for one, other in enumerate(places) if places[other] != one), None)
    if odd is not None:
        raise ResnestError(
            f"{file}: flip_idx has no pairs: {odd} becomes {places[odd]}, and that {places[places[odd]]}"
        )
    return tuple((one, other) for one, other in enumerate(places) if one < other)


def read_yolo(pose: PoseFiles, sources: Sequence[Path]) -> KeypointSamples:
    """The pictures of one part, with their label files. Raises ResnestError, with the file and its line."""
    pictures, notes = list_pictures(sources, pose.files)
    labels = [label_of(picture) for picture in pictures]
    if not any(file.is_file() for file in labels):
        raise ResnestError(
            f"{pose.files.where}: none of {len(pictures)} images has a label file: there is no {labels[0]}"
        )
    root = common_root(pictures)
    names = [below(root, picture) for picture in pictures]
    keys, sizes = list[str](), list[tuple[int, int]]()
    owners, lines, unread = list[int](), list[tuple[float, ...]](), 0
    for name, file, size in zip(names, labels, read_sizes(root, names), strict=True):
        if size is None:
            unread += 1
            continue
        own = _lines(file, pose)
        owners += [len(keys)] * len(own)
        lines += own
        keys.append(name)
        sizes.append(size)
    left = [f"left out: {counted(unread, 'image', 'images')} that cannot be read"] if unread else []
    unlabelled = sum(not file.is_file() for file in labels)
    empty = [f"{counted(unlabelled, 'image has', 'images have')} no label file"] if unlabelled else []
    table, found = _table(pose, np.array(owners, np.int64), lines, np.array(sizes, np.int64).reshape(-1, 2))
    classes = dict(pose.files.names or {})
    merged = [f"{len(classes)} classes have the same points, and count as one"] if len(classes) > 1 else []
    return KeypointSamples.build(
        FolderStore(root),
        pose.layout,
        PictureTable(keys, np.arange(1, len(keys) + 1), np.array(sizes, np.int64).reshape(-1, 2)),
        table,
        thing=next(iter(classes.values()), "object") if len(classes) < 2 else "object",
        category_id=1,
        notes=(*pose.files.notes, *notes, *pose.notes, *merged, *left, *empty, *found),
    )


def _table(
    pose: PoseFiles, owners: NDArray[Any], lines: Sequence[Sequence[float]], sizes: NDArray[Any]
) -> tuple[PeopleTable, list[str]]:
    """All objects in pixels; notes."""
    count = len(pose.layout.names)
    rows = np.array(lines, np.float64).reshape(-1, 4 + count * pose.numbers)
    wide_high = sizes[owners].astype(np.float64)
    middle, size = rows[:, :2] * wide_high, rows[:, 2:4] * wide_high
    parts = rows[:, 4:].reshape(-1, count, pose.numbers)
    if pose.numbers == 3:
        visible = parts[..., 2].astype(np.int8)
    else:
        there = (parts >= 0).all(-1) & (parts > 0).any(-1)
        visible = np.where(there, 2, 0).astype(np.int8)
    boxes = np.concatenate([middle - size / 2, middle + size / 2], axis=1)
    points = parts[..., :2] * wide_high[:, None]
    boxes, visible, unboxed = mend_boxes(boxes, points, visible)
    areas, guessed = areas_of(np.full(len(rows), np.nan), boxes)
    table = PeopleTable(
        pictures=owners,
        boxes=boxes,
        points=points,
        visible=visible,
        areas=areas,
        crowd=np.zeros(len(rows), bool),
        ids=np.arange(1, len(rows) + 1),
    )
    return table, [*unboxed, *guessed, *outside_notes(table, sizes, pose.layout, str(pose.files.where))]


def _lines(file: Path, pose: PoseFiles) -> list[tuple[float, ...]]:
    """Box and points of each object of a picture. Raises ResnestError."""
    return [_parse(words, where, pose) for where, words in read_label(file)]


def _parse(words: Sequence[str], where: str, pose: PoseFiles) -> tuple[float, ...]:
    count = len(pose.layout.names)
    needed = 5 + count * pose.numbers
    if len(words) != needed:
        raise ResnestError(
            f"{where} has {len(words)} numbers: expected {needed}, a class, a box of 4 and {count} points of"
            f" {pose.numbers} (kpt_shape)"
        )
    try:
        kind, *numbers = map(float, words)
    except ValueError:
        raise ResnestError(f"{where}: {' '.join(words)[:60]!r} is not a class number and fractions") from None
    if not all(map(math.isfinite, (kind, *numbers))) or not kind.is_integer() or kind < 0:
        raise ResnestError(f"{where}: {' '.join(words)[:60]!r} is not a class number and finite fractions")
    if pose.files.names is not None and int(kind) not in pose.files.names:
        raise ResnestError(f"{where}: class {int(kind)}, but {pose.files.where} has {pose.files.numbers()}")
    marks = numbers[6::3] if pose.numbers == 3 else []
    if odd := next((mark for mark in marks if mark not in VISIBLE), None):
        raise ResnestError(f"{where}: visibility {odd:g}: expected 0 (not annotated), 1 (hidden) or 2 (visible)")
    places = [value for k, value in enumerate(numbers) if k < 4 or pose.numbers == 2 or (k - 4) % 3 < 2]
    if far := next((value for value in places if abs(value) > FARTHEST), None):
        raise ResnestError(f"{where}: {far:g} is no fraction of the picture: divide pixels by its width and height")
    return tuple(numbers)
