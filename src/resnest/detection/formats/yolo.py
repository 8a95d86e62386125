"""YOLO: a label file for each picture, with a line for each object: class number, then fractions of the picture.

    handle = find_yolo(Path("pets"))              # pets/data.yaml, pets/images/train/a.jpg, pets/labels/train/a.txt

Four numbers are a box: centre, width and height. More are the points of an outline; a label file may have both. A
picture with an empty label file or none has no object. Fractions are of the upright picture, as Ultralytics reads them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from resnest.data.folders import picture_of
from resnest.data.formats import DatasetHandle
from resnest.data.parts import VAL_KEYS, note_of_test
from resnest.detection.data import DetectionSamples
from resnest.detection.formats.collector import UNREADABLE, Collector, Tally, notes_of
from resnest.detection.formats.finding import with_suffix
from resnest.detection.formats.pictures import Size, below, common_root, read_sizes
from resnest.detection.formats.yolo_files import (
    LISTS,
    YoloFiles,
    in_folders,
    is_yolo,
    label_of,
    list_pictures,
    of_darknet,
    of_yaml,
    read_label,
    yaml_in,
)
from resnest.detection.formats.yolo_kinds import Kinds
from resnest.errors import ResnestError

FARTHEST = 2.0  # what is farther is no fraction; what is a little outside is clipped, as in all formats
OUTLINES = "yolo-outlines"  # the format's name if outlines are meant that may be rotated boxes or key points

UNLABELLED = ("image has no label file, and no objects", "images have no label file, and no objects")

Line = tuple[int, tuple[float, ...]]  # class, numbers


def find_yolo(path: Path, task: str | None = None, *, outlines: bool = False) -> DatasetHandle | None:
    """A yaml of Ultralytics, a folder with one or with Darknet's obj.data, or folders of pictures and label files."""
    if path.is_file():
        files = of_yaml(path) if path.suffix.lower() in (".yaml", ".yml") and is_yolo(path) else None
    elif found := yaml_in(path):
        files = of_yaml(found)
    elif (path / "obj.data").is_file():
        files = of_darknet(path / "obj.data")
    else:
        files = in_folders(path)
    if files is None:
        return None
    val = next((name for name in VAL_KEYS if name in files.sources), None)
    train = files.sources.get("train") or files.sources.get("")
    if not val and not train:
        raise ResnestError(f"{files.where} names no images: neither train nor val")
    read = partial(read_yolo, files, outlines=outlines)
    format, where = OUTLINES if outlines else "yolo", str(files.where)
    if not val:
        return DatasetHandle(format, where, unsplit=lambda: read(train or []))
    test = files.sources.get("test")
    return DatasetHandle(
        format,
        where,
        train=(lambda: read(train)) if train else None,
        val=lambda: read(files.sources[val]),
        test=(lambda: read(test)) if test else None,
        notes=(note_of_test("test"),) if val == "test" else (),
    )


def find_outlines(path: Path, task: str | None = None) -> DatasetHandle | None:
    """As `find_yolo`, where that refuses outlines that may be rotated boxes or key points; chosen by its name."""
    return find_yolo(path, task, outlines=True)


def read_yolo(files: YoloFiles, sources: Sequence[Path], *, outlines: bool = False) -> DetectionSamples:
    """The pictures of one part, with their label files. Raises ResnestError, with the file and its line."""
    pictures, notes = list_pictures(sources, files)
    labels = [label_of(picture) for picture in pictures]
    if not any(file.is_file() for file in labels):
        raise ResnestError(f"{files.where}: none of {len(pictures)} images has a label file: there is no {labels[0]}")
    _check_owners(pictures, labels)
    root = common_root(pictures)
    names = [below(root, picture) for picture in pictures]
    collector, tally = Collector(files.where, _class_names(files, labels)), Tally()
    kinds = Kinds()
    for name, file, size in zip(names, labels, read_sizes(root, names), strict=True):
        if size is None:
            tally[UNREADABLE] += 1
            continue
        image = collector.image(name, size)
        tally[UNLABELLED] += not file.is_file()
        for label, numbers in _lines(file, files):
            kinds.see(numbers)
            _add(collector, image, label, numbers, size)
    if (doubt := kinds.doubt()) and not outlines:
        raise ResnestError(f"{files.where}: {doubt}. If they are outlines, set data.format={OUTLINES}")
    if all(source.is_dir() for source in sources):
        tally["label file has no image", "label files have no image"] = _alone(labels)
    return collector.done(root, [*files.notes, *notes, *notes_of(tally)])


def _check_owners(pictures: Sequence[Path], labels: Sequence[Path]) -> None:
    """Raises ResnestError for a label file of two pictures, such as a photo and its mask or preview beside it."""
    owned: dict[Path, dict[str, list[str]]] = {}
    for picture, file in zip(pictures, labels, strict=True):
        owned.setdefault(file, {}).setdefault(file.stem, []).append(picture.name)
    for file, names in owned.items():
        if len(names[file.stem]) > 1 and file.is_file():
            picture_of(file.stem, names, where=file)


def _class_names(files: YoloFiles, labels: Sequence[Path]) -> dict[int, str]:
    """Names by number; without a list the numbers that are used."""
    if files.names is not None:
        return dict(files.names)
    used = {label for file in labels for label, _ in _lines(file, files)}
    return {number: str(number) for number in sorted(used)}


def _lines(file: Path, files: YoloFiles) -> list[Line]:
    """The objects of a picture. Raises ResnestError."""
    return [_parse(words, where, files) for where, words in read_label(file)]


def _parse(words: Sequence[str], where: str, files: YoloFiles) -> Line:
    """Raises ResnestError."""
    try:
        kind, *numbers = map(float, words)
    except ValueError:
        raise ResnestError(f"{where}: {' '.join(words)[:60]!r} is not a class number and fractions") from None
    if not all(map(math.isfinite, (kind, *numbers))) or not kind.is_integer() or kind < 0:
        raise ResnestError(f"{where}: {' '.join(words)[:60]!r} is not a class number and finite fractions")
    if len(numbers) == 5:
        raise ResnestError(f"{where} has 6 numbers, as predictions with their confidence: labels have 5")
    if len(numbers) < 4 or len(numbers) % 2:
        hint = (
            ", as of key points (YOLO pose: data.yaml with kpt_shape, a recipe for keypoints)"
            if len(numbers) > 6
            else ""
        )
        raise ResnestError(f"{where} has {len(words)} numbers{hint}: a box has 5, an outline of k points 2 k + 1")
    if far := next((number for number in numbers if abs(number) > FARTHEST), None):
        raise ResnestError(f"{where}: {far:g} is no fraction of the picture: divide pixels by its width and height")
    if files.names is not None and int(kind) not in files.names:
        raise ResnestError(f"{where}: class {int(kind)}, but {files.where} has {files.numbers()}")
    return int(kind), tuple(numbers)


def _add(collector: Collector, image: int, label: int, numbers: tuple[float, ...], size: Size) -> None:
    wide, high = size
    if len(numbers) == 4:
        x, y, width, height = numbers
        box = ((x - width / 2) * wide, (y - height / 2) * high, (x + width / 2) * wide, (y + height / 2) * high)
        collector.add(image, label, box=box)
    else:
        points = zip(numbers[0::2], numbers[1::2], strict=True)
        collector.add(image, label, outline=[[number for x, y in points for number in (x * wide, y * high)]])


def _alone(labels: Sequence[Path]) -> int:
    """Label files in folders called so that no picture has."""
    folders = {file.parent for file in labels if "labels" in file.parts}
    every = {file for folder in folders for file in with_suffix(folder, ".txt") if file.name not in LISTS}
    return len(every - set(labels))
