"""Which format a data set has, and its parts.

    data = open_dataset(Path("flowers"))               # data.format, data.train, data.val: to train on
    part = open_part(Path("imagenet"), split="val")    # one part alone: to evaluate on

One rule, first match wins: the word `digits`; a .zip, .npz or .csv file; a folder with `train` and `val` as folders,
zips, npz or csv files, or with `val` alone; a folder with `labels.csv`; a folder of class folders, which is split
reproducibly. `valid`, `validation` and `test` do for `val` where there is no `val`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from resnest.data.readers import (
    Labelled,
    number_classes,
    read_csv,
    read_csv_rows,
    read_digits,
    read_folder,
    read_npz,
    read_zip,
    scan_zip,
)
from resnest.data.samples import FolderStore, Samples, ZipStore, split_samples
from resnest.errors import ResnestError, unknown

VAL_NAMES = ("val", "valid", "validation", "test")
FORMATS = ("folder", "zip", "npz", "csv", "digits")
LABELS_FILE = "labels.csv"

Read = Callable[[], Samples]


@dataclass(frozen=True)
class Splits:
    """A data set for training: both parts have the same classes."""

    format: str  # one of FORMATS
    where: str
    train: Samples
    val: Samples
    whole: Samples | None = None  # both parts together, where the validation part was held back here

    def __post_init__(self) -> None:
        _check_classes(self.train, self.where)
        if len(self.val) == 0:
            raise ResnestError(f"{self.where} has no validation image: every class has one image only")

    def describe(self) -> str:
        held = " held back" if self.whole else ""
        return (
            f"{self.where} ({self.format}): {len(self.train)} training and {len(self.val)} validation images{held},"
            f" {len(self.train.class_names)} classes{', several an image' if self.train.multi_label else ''}"
        )


@dataclass(frozen=True)
class Part:
    """The images to evaluate on, and which they are."""

    samples: Samples
    describe: str


@dataclass(frozen=True)
class _Found:
    """A data set before anything of it is read: either its parts, or one whole."""

    format: str
    where: str
    train: Read | None = None
    val: Read | None = None
    whole: Read | None = None


def open_dataset(where: str | Path, *, format: str = "auto", val_share: float = 0.2, seed: int = 0) -> Splits:
    """Open a data set in whatever format it has, to train on.

    Args:
        where: a folder, a file, or "digits".
        format: one of FORMATS where the rule above would choose another.
        val_share: share of each class that is held back if the data set has no validation part.
        seed: of that split.

    Raises:
        ResnestError: nothing there, no images, one class, a class without images, classes that do not agree.
    """
    found = _find(where, format)
    if found.whole is not None:
        return _split(found, found.whole(), val_share, seed)
    if found.train is None or found.val is None:
        raise ResnestError(f"{found.where} has a validation part but no folder train beside it: nothing to train on")
    return Splits(found.format, found.where, *_same_classes(found.train(), found.val(), found.where))


def open_part(
    where: str | Path, split: str = "auto", *, format: str = "auto", held_back: tuple[float, int] | None = None
) -> Part:
    """Open the part of a data set to evaluate on; the other one is not read.

    Args:
        split: "val", "train", "all" of a data set without parts; "auto" takes the validation part, and of a data set
            without parts what training held back, or everything if the model was not trained here.
        held_back: share and seed of the split in training; None for a model that was not trained here.

    Raises:
        ResnestError: as `open_dataset`; a part that the data set does not have.
    """
    if split not in ("auto", "val", "train", "all"):
        raise ResnestError(f"--split {split}: expected auto, val, train or all")
    found = _find(where, format)
    if found.whole is None:
        if split == "all":
            raise ResnestError(f"--split all: {found.where} comes with its own validation part; choose val or train")
        read, name = (found.train, "training") if split == "train" else (found.val, "validation")
        if read is None:
            raise ResnestError(f"--split {split}: {found.where} has no {name} part")
        return _part(found, read(), f"{name} images")
    whole = found.whole()
    if split == "all" or (split == "auto" and held_back is None):
        return _part(found, whole, "images, all there are")
    share, seed = held_back or (0.2, 0)
    splits = _split(found, whole, share, seed)
    if split == "train":
        return _part(found, splits.train, "images, without those held back")
    return _part(found, splits.val, "images held back")


def _part(found: _Found, samples: Samples, what: str) -> Part:
    classes = len(samples.class_names)
    return Part(samples, f"{found.where} ({found.format}): {len(samples)} {what}, {classes} classes")


def _find(where: str | Path, format: str) -> _Found:
    if format not in ("auto", *FORMATS):
        raise unknown("data format", format, FORMATS)
    path = Path(where)
    if str(where) == "digits" and not path.exists():
        return _Found("digits", "digits", whole=read_digits)
    if not path.exists():
        raise ResnestError(f"there is no data at {path}: give a folder, a .zip, .npz or .csv file, or 'digits'")
    return _find_in_file(path, format) if path.is_file() else _find_in_folder(path, format)


def _find_in_file(path: Path, format: str) -> _Found:
    kind = path.suffix.lower().lstrip(".") if format == "auto" else format
    if kind == "zip":
        labelled, store = scan_zip(path), ZipStore(path)
        parts = _parts_by_prefix(labelled)
        if parts:
            train, val = parts
            return _Found(
                kind,
                str(path),
                train=lambda: number_classes(store, train, path.parent),
                val=lambda: number_classes(store, val, path.parent),
            )
        return _Found(kind, str(path), whole=lambda: number_classes(store, labelled, path.parent))
    if kind == "npz":
        return _Found(kind, str(path), whole=lambda: read_npz(path))
    if kind == "csv":
        return _find_in_csv(path, str(path))
    raise ResnestError(f"{path} is not a data set: give a folder, a .zip, .npz or .csv file")


def _find_in_folder(path: Path, format: str) -> _Found:
    for kind, suffix, read in _READERS:
        if format in ("auto", kind) and (pair := _find_pair(path, suffix)):
            train, val = pair
            return _Found(kind, str(path), train=partial(read, train) if train else None, val=partial(read, val))
    if format in ("auto", "csv") and (path / LABELS_FILE).is_file():
        return _find_in_csv(path / LABELS_FILE, str(path))
    if format in ("auto", "folder"):
        return _Found("folder", str(path), whole=lambda: read_folder(path, names_in=path))
    raise ResnestError(f"{path} holds no data set of format {format!r} (looked for train and val in it)")


def _find_pair(folder: Path, suffix: str) -> tuple[Path | None, Path] | None:
    """Training and validation part; the former may be missing where nothing else could be meant."""
    exists: Callable[[Path], bool] = Path.is_file if suffix else Path.is_dir
    train = folder / f"train{suffix}"
    val = next((folder / f"{name}{suffix}" for name in VAL_NAMES if exists(folder / f"{name}{suffix}")), None)
    if val is None:
        return None
    if exists(train):
        return train, val
    others = [child for child in folder.iterdir() if child.is_dir() and child.name not in VAL_NAMES]
    alone = not others and (bool(suffix) or any(child.is_dir() for child in val.iterdir()))
    return (None, val) if alone else None


def _find_in_csv(path: Path, where: str) -> _Found:
    rows = read_csv_rows(path)
    if rows[0].split is None:
        return _Found("csv", where, whole=lambda: read_csv(path))
    store = FolderStore(path.parent)
    train: Labelled = [(row.path, row.label) for row in rows if row.split == "train"]
    val: Labelled = [(row.path, row.label) for row in rows if row.split in VAL_NAMES]
    if not train or not val:
        raise ResnestError(f"{path}: the column split must hold both train and val")
    return _Found(
        "csv",
        where,
        train=lambda: number_classes(store, train, path.parent),
        val=lambda: number_classes(store, val, path.parent),
    )


def _parts_by_prefix(labelled: Labelled) -> tuple[Labelled, Labelled] | None:
    """Train and validation part of one zip, if some folder above the classes says so."""

    def inside(names: Sequence[str]) -> Labelled:
        return [(key, label) for key, label in labelled if set(PurePosixPath(key).parts[:-2]) & set(names)]

    train = inside(["train"])
    val = next((part for name in VAL_NAMES if (part := inside([name]))), [])
    return (train, val) if train and val else None


_READERS: tuple[tuple[str, str, Callable[[Path], Samples]], ...] = (
    ("folder", "", read_folder),
    ("zip", ".zip", read_zip),
    ("npz", ".npz", read_npz),
    ("csv", ".csv", read_csv),
)


def _split(found: _Found, samples: Samples, val_share: float, seed: int) -> Splits:
    if len(samples) == 1:
        raise ResnestError(f"{found.where} has one image only: nothing would be left to validate on")
    _check_classes(samples, found.where)
    return Splits(found.format, found.where, *split_samples(samples, val_share, seed), whole=samples)


def _same_classes(train: Samples, val: Samples, where: str) -> tuple[Samples, Samples]:
    """Renumber the validation labels by the training classes; a class may lack validation images."""
    strange = [name for name in val.class_names if name not in train.class_names]
    if strange:
        images = [key for place, key in enumerate(val.keys) if strange[0] in val.names_of(place)]
        told = ", ".join(strange[:5]) + (f" (as in {images[0]})" if images else "")
        raise ResnestError(f"{where}: validation has classes that training has not: {told}")
    if val.multi_label and not train.multi_label:
        raise ResnestError(f"{where}: validation images have several labels and training images one: call both labels")
    index = np.array([train.class_names.index(name) for name in val.class_names], np.int64)
    return train, val.renumbered(index, train.class_names, multi_label=train.multi_label)


def _check_classes(samples: Samples, where: str) -> None:
    if not samples.class_names:
        raise ResnestError(f"{where} has no label in any line")
    if len(samples.class_names) < 2 and not samples.multi_label:
        raise ResnestError(f"{where} has one class only ({samples.class_names[0]}): a classifier needs two or more")
    empty = [samples.class_names[label] for label in np.flatnonzero(samples.counts() == 0)]
    if empty:
        raise ResnestError(f"{where}: no training image of class {', '.join(empty[:5])}")
