"""The one rule that says which format a data set has.

First match wins:
1. the word `digits`; `hf:owner/name`, a data set of the Hugging Face hub;
2. a .zip, .npz, .csv, .tar, .parquet or .json file (COCO's);
3. a folder that `datasets.save_to_disk` wrote;
4. a folder with COCO json or Pascal VOC xml in `annotations`, or in `train` and `valid` (`_annotations.coco.json`,
   or xml files beside the images), or with xml files beside images;
5. a folder of images and masks in one of the ways of `pixel_finding`;
6. a folder with `train` and `val` as folders of classes, zips, npz or csv files, or with `val` alone;
7. a folder with `labels.csv`;
8. a folder of .tar or .parquet files, here, in `data`, or in folders named by part; without a training and a
   validation part only if it has no folders of classes;
9. a folder of classes.

For the tasks segmentation and panoptic only the ways of `pixel_finding` count, so that a folder with annotations of
several kinds serves each task. A format that is named is the only one that is looked for.

`valid`, `validation` and `test` do for `val` where there is no `val`. What has no parts is split reproducibly.

    found = find("flowers", "auto")
    found.format, found.train, found.val, found.whole      # functions that read, or None
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from resnest.data import remote
from resnest.data.coco import read_coco
from resnest.data.found import Found, Read
from resnest.data.parquet import read_arrow, read_parquet
from resnest.data.parts import (
    PART_NAMES,
    VAL_NAMES,
    Parts,
    choose_parts,
    has_class_folders,
    holds_files,
    holds_xml,
    is_of,
    list_coco,
    list_files,
)
from resnest.data.pixel_finding import PIXEL_FORMATS, PIXEL_TASKS, find_pixels, look_for_pixels
from resnest.data.readers import (
    Labelled,
    number_classes,
    number_csv,
    read_csv,
    read_csv_rows,
    read_digits,
    read_folder,
    read_npz,
    read_zip,
    scan_zip,
)
from resnest.data.samples import Samples, ZipStore
from resnest.data.shards import read_shards, scan_shards
from resnest.data.voc import read_list, read_voc
from resnest.errors import ResnestError, unknown

FORMATS = ("folder", "zip", "npz", "csv", "tar", "parquet", "arrow", "coco", "voc", *PIXEL_FORMATS, "digits")
TASKS = ("classification", "detection", *PIXEL_TASKS)
LABELS_FILE = "labels.csv"
VOC_FOLDERS = ("Annotations", "annotations", ".")
EXPECTED = "give a folder, a .zip, .npz, .csv, .tar, .parquet or COCO .json file"

# Formats with one file or folder a part, and those with one file or several
ONE: tuple[tuple[str, str, Callable[[Path], Samples]], ...] = (
    ("folder", "", read_folder),
    ("zip", ".zip", read_zip),
    ("npz", ".npz", read_npz),
    ("csv", ".csv", read_csv),
)
SEVERAL: dict[str, Callable[[Sequence[Path]], Samples]] = {"parquet": read_parquet, "tar": read_shards}


def find(where: str | Path, format: str, task: str | None = None) -> Found:
    """Raises ResnestError: nothing there, no such format, not of that format, or nothing for that task."""
    if format not in ("auto", *FORMATS):
        raise unknown("data format", format, FORMATS)
    if task not in (None, *TASKS):
        raise unknown("task", str(task), TASKS)
    path = Path(where)
    if not path.exists():
        if str(where) == "digits":
            return Found("digits", "digits", whole=read_digits)
        if str(where).startswith(remote.PREFIX):
            return _find_on_hub(str(where), format)
        raise ResnestError(f"there is no data at {path}: {EXPECTED}, {remote.PREFIX}OWNER/NAME of the hub, or 'digits'")
    if task in PIXEL_TASKS or format in PIXEL_FORMATS:
        return find_pixels(path, format, task)
    return _find_in_file(path, format) if path.is_file() else _find_in_folder(path, format)


def _find_in_file(path: Path, format: str) -> Found:
    kind = path.suffix.lower().lstrip(".") if format == "auto" else format
    if kind == "zip":
        labelled, store = scan_zip(path), ZipStore(path)
        return _by_folders(kind, str(path), labelled, lambda part: number_classes(store, part, path.parent))
    if kind == "npz":
        return Found(kind, str(path), whole=lambda: read_npz(path))
    if kind == "csv":
        return _find_in_csv(path, str(path))
    if kind in ("json", "coco"):
        return Found("coco", str(path), whole=partial(read_coco, path))
    for several in SEVERAL:
        if kind == several or (format == "auto" and is_of(several, path.name)):
            return _by_part(several, str(path), Parts([], [], [path.name]), path.parent)
    raise ResnestError(f"{path} is not a data set: {EXPECTED}")


def _find_in_folder(path: Path, format: str) -> Found:
    if format in ("auto", "arrow") and (saved := _find_saved(path)):
        return saved
    if format in ("auto", "coco") and (annotated := _find_coco(path)):
        return annotated
    if format in ("auto", "voc") and (annotated := _find_voc(path)):
        return annotated
    if format == "auto" and (masked := look_for_pixels(path)):
        return masked
    for kind, suffix, read in ONE:
        if format in ("auto", kind) and (pair := _find_pair(path, suffix)):
            train, val = pair
            return Found(kind, str(path), train=partial(read, train) if train else None, val=partial(read, val))
    if format in ("auto", "csv") and (path / LABELS_FILE).is_file():
        return _find_in_csv(path / LABELS_FILE, str(path))
    for kind in SEVERAL:
        names = list_files(path, kind) if format in ("auto", kind) else []
        parts = choose_parts(names)
        if names and (format == kind or (parts.train and parts.val) or not has_class_folders(path)):
            return _by_part(kind, str(path), parts, path)
    if format in ("auto", "folder"):
        return Found("folder", str(path), whole=lambda: read_folder(path, names_in=path))
    raise ResnestError(f"{path} holds no data set of format {format!r} (looked for train and val in it)")


def _find_on_hub(reference: str, format: str) -> Found:
    data = remote.look_up(reference, [format] if format in SEVERAL else list(SEVERAL))
    return _by_part(data.kind, data.where, choose_parts(data.names), data.fetch)


def _by_part(kind: str, where: str, parts: Parts, place: Path | Callable[[str], Path]) -> Found:
    """Files of a format that may have several a part; `place` is their folder, or fetches one of them."""

    def read(names: list[str]) -> Read:
        return lambda: SEVERAL[kind]([place / name if isinstance(place, Path) else place(name) for name in names])

    if parts.val:
        return Found(kind, where, train=read(parts.train) if parts.train else None, val=read(parts.val))
    if kind == "tar" and isinstance(place, Path):  # folders inside may be named by part
        shards = scan_shards([place / name for name in parts.whole])
        return _by_folders(kind, where, shards.labelled, shards.number)
    return Found(kind, where, whole=read(parts.whole))


def _find_saved(path: Path) -> Found | None:
    """What `datasets.save_to_disk` wrote: one data set, or several with a list of their names."""
    if (path / "state.json").is_file() and (path / "dataset_info.json").is_file():
        return Found("arrow", str(path), whole=lambda: read_arrow([path]))
    try:
        names = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        parts = choose_parts(PurePosixPath(name).name for name in names)
    except OSError:
        return None
    except (ValueError, KeyError, TypeError):
        raise ResnestError(f"{path / 'dataset_dict.json'} does not list the splits of a saved data set") from None

    def read(names: list[str]) -> Read:
        return lambda: read_arrow([path / name for name in names])

    if not parts.val:
        if len(parts.whole) != 1:
            raise ResnestError(
                f"{path} has the parts {', '.join(parts.whole) or '(none)'}: none of them is train or val"
            )
        return Found("arrow", str(path), whole=read(parts.whole))
    return Found("arrow", str(path), train=read(parts.train) if parts.train else None, val=read(parts.val))


def _find_coco(path: Path) -> Found | None:
    """Annotation files by part: in `annotations`, or in folders named by part."""
    names = list_coco(path)
    parts = choose_parts(names)
    for chosen in parts:
        if len(chosen) > 1:
            raise ResnestError(
                f"{path} has several annotation files of one part: {', '.join(chosen)}; give one .json file, or leave"
                " one training and one validation file there"
            )
    if parts.val:
        train = partial(read_coco, path / parts.train[0]) if parts.train else None
        return Found("coco", str(path), train=train, val=partial(read_coco, path / parts.val[0]))
    return Found("coco", str(path), whole=partial(read_coco, path / parts.whole[0])) if parts.whole else None


def _find_voc(path: Path) -> Found | None:
    """xml files in `Annotations`, whose parts are listed in ImageSets/Main, or beside images, perhaps by part."""
    folder = next((place for name in VOC_FOLDERS if holds_xml(place := path / name)), None)
    if folder is None:
        parts = choose_parts([name for name in PART_NAMES if holds_xml(path / name)])
        if not parts.val:
            return None
        train = partial(read_voc, path / parts.train[0]) if parts.train else None
        return Found("voc", str(path), train=train, val=partial(read_voc, path / parts.val[0]))

    def part(*names: str) -> Read | None:
        lists = [path / "ImageSets" / "Main" / f"{name}.txt" for name in names]
        found = next((place for place in lists if place.is_file()), None)
        return (lambda: read_voc(folder, read_list(found))) if found else None

    if val := part("val"):
        return Found("voc", str(path), train=part("train"), val=val)
    if val := part("test"):
        return Found("voc", str(path), train=part("trainval", "train"), val=val)
    return Found("voc", str(path), whole=part("trainval", "train") or partial(read_voc, folder))


def _find_pair(folder: Path, suffix: str) -> tuple[Path | None, Path] | None:
    """Training and validation part; the former may be missing where nothing else could be meant."""

    def exists(path: Path) -> bool:
        return path.is_file() if suffix else path.is_dir() and not holds_files(path)

    train = folder / f"train{suffix}"
    val = next((folder / f"{name}{suffix}" for name in VAL_NAMES if exists(folder / f"{name}{suffix}")), None)
    if val is None:
        return None
    if exists(train):
        return train, val
    others = [child for child in folder.iterdir() if child.is_dir() and child.name not in VAL_NAMES]
    alone = not others and (bool(suffix) or any(child.is_dir() for child in val.iterdir()))
    return (None, val) if alone else None


def _find_in_csv(path: Path, where: str) -> Found:
    rows = read_csv_rows(path)
    if rows[0].split is None:
        return Found("csv", where, whole=lambda: number_csv(path, rows))
    train = [row for row in rows if row.split == "train"]
    val = [row for row in rows if row.split in VAL_NAMES]
    if not train or not val:
        raise ResnestError(f"{path}: the column split must hold both train and val")
    return Found("csv", where, train=lambda: number_csv(path, train), val=lambda: number_csv(path, val))


def _by_folders(kind: str, where: str, labelled: Labelled, read: Callable[[Labelled], Samples]) -> Found:
    """One archive, whose folders above the classes may be named by part."""

    def inside(names: Sequence[str]) -> Labelled:
        return [(key, label) for key, label in labelled if _folders(key, label) & set(names)]

    train = inside(["train"])
    val = next((part for name in VAL_NAMES if (part := inside([name]))), [])
    if train and val:
        return Found(kind, where, train=lambda: read(train), val=lambda: read(val))
    return Found(kind, where, whole=lambda: read(labelled))


def _folders(key: str, label: str | tuple[str, ...]) -> set[str]:
    """Folders that an image lies in, without the one that is its class."""
    folders = PurePosixPath(key).parts[:-1]
    return set(folders[:-1] if folders and folders[-1] == label else folders)
