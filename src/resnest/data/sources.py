"""Which format a data set has, and its samples.

    data = open_dataset(Path("flowers"))       # data.format, data.train, data.val

One rule, first match wins: the word `digits`; a .zip, .npz or .csv file; a folder with `train` and `val` as folders,
zips, npz or csv files; a folder of class folders, which is split reproducibly. `valid`, `validation` and `test` do
for `val` where there is no `val`.
"""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from resnest.data.samples import BytesStore, FolderStore, Samples, Store, ZipStore, split_samples
from resnest.errors import ResnestError, unknown
from resnest.runtime.decode import SUFFIXES

VAL_NAMES = ("val", "valid", "validation", "test")
FORMATS = ("folder", "zip", "npz", "csv", "digits")


@dataclass(frozen=True)
class Splits:
    """A data set for training: both parts have the same classes."""

    format: str  # one of FORMATS
    where: str
    train: Samples
    val: Samples
    whole: Samples | None = None  # both parts together, where the validation part was held back here

    def __post_init__(self) -> None:
        _check(self)

    def describe(self) -> str:
        held = " held back" if self.whole else ""
        return (
            f"{self.where} ({self.format}): {len(self.train)} training and {len(self.val)} validation images{held},"
            f" {len(self.train.class_names)} classes"
        )


# A labelled file before classes are numbered: (key, class key)
Labelled = list[tuple[str, str]]


def open_dataset(where: str | Path, *, format: str = "auto", val_share: float = 0.2, seed: int = 0) -> Splits:
    """Open a data set in whatever format it has.

    Args:
        where: a folder, a file, or "digits".
        format: one of FORMATS where the rule above would choose another.
        val_share: share of each class that is held back if the data set has no validation part.
        seed: of that split.

    Raises:
        ResnestError: nothing there, no images, one class, a class without images, classes that do not agree.
    """
    if format not in ("auto", *FORMATS):
        raise unknown("data format", format, FORMATS)
    path = Path(where)
    if str(where) == "digits" and not path.exists():
        return _split_one("digits", "digits", _digits(), val_share, seed)
    if not path.exists():
        raise ResnestError(f"there is no data at {path}: give a folder, a .zip, .npz or .csv file, or 'digits'")
    if path.is_file():
        return _open_file(path, format, val_share, seed)
    for kind, suffix, read in _PAIRS:
        if format in ("auto", kind) and (pair := _find_pair(path, suffix)):
            train, val = (read(part) for part in pair)
            return Splits(kind, str(path), *_same_classes(train, val, path))
    if format in ("auto", "folder"):
        return _split_one("folder", str(path), _number(FolderStore(path), _scan_folder(path), path), val_share, seed)
    raise ResnestError(f"{path} holds no data set of format {format!r} (looked for train and val in it)")


def _open_file(path: Path, format: str, val_share: float, seed: int) -> Splits:
    kind = path.suffix.lower().lstrip(".") if format == "auto" else format
    if kind == "zip":
        labelled = _scan_zip(path)
        parts = _parts_by_prefix(labelled)
        store = ZipStore(path)
        if parts:
            train, val = (_number(store, part, path.parent) for part in parts)
            return Splits(kind, str(path), *_same_classes(train, val, path))
        return _split_one(kind, str(path), _number(store, labelled, path.parent), val_share, seed)
    if kind == "npz":
        return _split_one(kind, str(path), _read_npz(path), val_share, seed)
    if kind == "csv":
        return _open_csv(path, val_share, seed)
    raise ResnestError(f"{path} is not a data set: give a folder, a .zip, .npz or .csv file")


def _split_one(kind: str, where: str, samples: Samples, val_share: float, seed: int) -> Splits:
    if len(samples) == 1:
        raise ResnestError(f"{where} has one image only: nothing would be left to validate on")
    _check_classes(samples, where)
    return Splits(kind, where, *split_samples(samples, val_share, seed), whole=samples)


def _find_pair(folder: Path, suffix: str) -> tuple[Path, Path] | None:
    exists: Callable[[Path], bool] = Path.is_file if suffix else Path.is_dir
    train = folder / f"train{suffix}"
    val = next((folder / f"{name}{suffix}" for name in VAL_NAMES if exists(folder / f"{name}{suffix}")), None)
    return (train, val) if exists(train) and val else None


# --- readers, one per format ---


def _scan_folder(folder: Path) -> Labelled:
    found: Labelled = []
    classes = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    for child in classes:
        files = sorted(file for file in child.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        if not files:
            raise ResnestError(f"class {child.name!r} has no image in {child} (looked for {', '.join(SUFFIXES)})")
        found += [(file.relative_to(folder).as_posix(), child.name) for file in files]
    if not found:
        raise ResnestError(f"no images in {folder}: expected one folder per class, {folder / 'CLASS' / 'image.jpg'}")
    return found


def _read_folder(folder: Path) -> Samples:
    return _number(FolderStore(folder), _scan_folder(folder), folder.parent)


def _scan_zip(path: Path) -> Labelled:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
    except zipfile.BadZipFile as error:
        raise ResnestError(f"{path} is not a readable zip file: {error}") from None
    images = [PurePosixPath(name) for name in names if PurePosixPath(name).suffix.lower() in SUFFIXES]
    found = [(str(image), image.parent.name) for image in images if image.parent.name]
    if not found:
        raise ResnestError(f"no images in {path}: expected CLASS/image.jpg in it")
    return sorted(found)


def _read_zip(path: Path) -> Samples:
    return _number(ZipStore(path), _scan_zip(path), path.parent)


def _parts_by_prefix(labelled: Labelled) -> tuple[Labelled, Labelled] | None:
    """Train and validation part of one zip, if some folder above the classes says so."""

    def inside(names: Sequence[str]) -> Labelled:
        return [(key, label) for key, label in labelled if set(PurePosixPath(key).parts[:-2]) & set(names)]

    train = inside(["train"])
    val = next((part for name in VAL_NAMES if (part := inside([name]))), [])
    return (train, val) if train and val else None


def _read_npz(path: Path) -> Samples:
    try:
        with np.load(path, allow_pickle=False) as content:
            record = {key: content[key] for key in ("jpeg", "offsets", "labels", "classes")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ResnestError(
            f"{path} is not a data set: it needs the arrays jpeg, offsets, labels, classes ({error})"
        ) from None
    offsets, labels = record["offsets"].astype(np.int64), record["labels"].astype(np.int64)
    if len(offsets) != len(labels) + 1 or offsets[-1] > record["jpeg"].size or (np.diff(offsets) < 0).any():
        raise ResnestError(f"{path}: offsets do not fit {len(labels)} labels and {record['jpeg'].size} bytes")
    class_names = tuple(str(name) for name in record["classes"])
    if labels.size and not 0 <= labels.min() <= labels.max() < len(class_names):
        raise ResnestError(f"{path}: labels reach {labels.max()}, but there are {len(class_names)} classes")
    keys = [f"{index:06d}" for index in range(len(labels))]
    return Samples(BytesStore(record["jpeg"], offsets), keys, labels, class_names)


def _read_csv_rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ResnestError(f"{path} cannot be read as CSV: {error}") from None
    columns = list(rows[0]) if rows else []
    path_column = next((name for name in ("path", "file") if name in columns), None)
    if path_column is None or "label" not in columns:
        raise ResnestError(f"{path} needs the columns path and label in its first line, it has: {', '.join(columns)}")
    for number, row in enumerate(rows, start=2):
        if not row[path_column] or not row["label"]:
            raise ResnestError(f"{path}, line {number}: path or label is empty")
    return [{**row, "path": row[path_column]} for row in rows]


def _read_csv(path: Path) -> Samples:
    labelled = [(row["path"], row["label"]) for row in _read_csv_rows(path)]
    return _number(FolderStore(path.parent), labelled, path.parent)


def _open_csv(path: Path, val_share: float, seed: int) -> Splits:
    rows = _read_csv_rows(path)
    if "split" not in rows[0]:
        return _split_one("csv", str(path), _read_csv(path), val_share, seed)
    store = FolderStore(path.parent)
    train = [(row["path"], row["label"]) for row in rows if row["split"] == "train"]
    val = [(row["path"], row["label"]) for row in rows if row["split"] in VAL_NAMES]
    if not train or not val:
        raise ResnestError(f"{path}: the column split must hold both train and val")
    parts = [_number(store, part, path.parent) for part in (train, val)]
    return Splits("csv", str(path), *_same_classes(parts[0], parts[1], path))


def _digits() -> Samples:
    """scikit-learn's handwritten digits: 1,797 real scans of 8 x 8 pixels (UCI, Alpaydin and Kaynak 1998)."""
    import io

    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    records = []
    for scan in digits.images:
        buffer = io.BytesIO()
        Image.fromarray(np.round(scan * (255 / 16)).astype(np.uint8)).save(buffer, "PNG")  # values are 0..16
        records.append(buffer.getvalue())
    offsets = np.cumsum([0, *map(len, records)])
    keys = [f"{index:04d}" for index in range(len(records))]
    content = np.frombuffer(b"".join(records), np.uint8)
    return Samples(BytesStore(content, offsets), keys, digits.target.astype(np.int64), tuple("0123456789"))


_PAIRS: tuple[tuple[str, str, Callable[[Path], Samples]], ...] = (
    ("folder", "", _read_folder),
    ("zip", ".zip", _read_zip),
    ("npz", ".npz", _read_npz),
    ("csv", ".csv", _read_csv),
)


# --- classes ---


def _number(store: Store, labelled: Labelled, beside: Path) -> Samples:
    """Number the classes in sorted order, whole numbers by value, and give them their names."""
    classes = {label for _, label in labelled}
    numeric = all(label.isdigit() for label in classes)
    ordered = sorted(classes, key=int) if numeric else sorted(classes)
    index = {label: number for number, label in enumerate(ordered)}
    names = _display_names(ordered, beside)
    labels = np.array([index[label] for _, label in labelled], np.int64)
    return Samples(store, [key for key, _ in labelled], labels, names)


def _display_names(classes: Sequence[str], beside: Path) -> tuple[str, ...]:
    """Readable names from a `classes.json` beside the data: rows of {synset or index, name}."""
    try:
        rows = json.loads((beside / "classes.json").read_text(encoding="utf-8"))
        names = {str(row[key]): str(row["name"]) for row in rows for key in ("synset", "index") if key in row}
    except (OSError, ValueError, TypeError, KeyError):
        return tuple(classes)
    if len({names.get(label) for label in classes} - {None}) < len(classes):
        return tuple(classes)  # not for these classes, or two of them share a name
    return tuple(names[label] for label in classes)


def _same_classes(train: Samples, val: Samples, where: Path) -> tuple[Samples, Samples]:
    """Renumber the validation labels by the training classes; a class may lack validation images."""
    strange = [name for name in val.class_names if name not in train.class_names]
    if strange:
        raise ResnestError(f"{where}: validation has classes that training has not: {', '.join(strange[:5])}")
    index = np.array([train.class_names.index(name) for name in val.class_names], np.int64)
    return train, Samples(val.store, val.keys, index[val.labels], train.class_names)


def _check(splits: Splits) -> None:
    _check_classes(splits.train, splits.where)
    if len(splits.val) == 0:
        raise ResnestError(f"{splits.where} has no validation image: every class has one image only")


def _check_classes(samples: Samples, where: str) -> None:
    if len(samples.class_names) < 2:
        raise ResnestError(f"{where} has one class only ({samples.class_names[0]}): a classifier needs two or more")
    empty = [samples.class_names[label] for label in np.flatnonzero(samples.counts() == 0)]
    if empty:
        raise ResnestError(f"{where}: no training image of class {', '.join(empty[:5])}")
