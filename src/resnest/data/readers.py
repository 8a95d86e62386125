"""Readers of labelled images, one per format: a file or folder to `LabelledSamples`.

samples = read_folder(Path("photos"))       # class folders
"""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from resnest.data.samples import LabelledSamples
from resnest.data.stores import BytesStore, FolderStore, Store, ZipStore
from resnest.errors import ResnestError
from resnest.runtime.decode import SUFFIXES

# A labelled file before classes are numbered: (key, class key), or (key, class keys) in multi-label data
Labelled = list[tuple[str, str | tuple[str, ...]]]
SEVERAL = "|"  # between the labels of one image in a CSV file


def scan_folder(folder: Path) -> Labelled:
    labelled: Labelled = []
    classes = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    for child in classes:
        files = sorted(file for file in child.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        if not files:
            raise ResnestError(f"class {child.name!r} has no image in {child} (looked for {', '.join(SUFFIXES)})")
        labelled += [(file.relative_to(folder).as_posix(), child.name) for file in files]
    if not labelled:
        raise ResnestError(f"no images in {folder}: expected one folder per class, {folder / 'CLASS' / 'image.jpg'}")
    return labelled


def read_folder(folder: Path, *, names_in: Path | None = None) -> LabelledSamples:
    """Class folders; `names_in` may contain a classes.json, by default the parent folder."""
    return number_classes(FolderStore(folder), scan_folder(folder), names_in or folder.parent)


def scan_zip(path: Path) -> Labelled:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
    except zipfile.BadZipFile as error:
        raise ResnestError(f"{path} is not a readable zip file: {error}") from None
    images = [PurePosixPath(name) for name in names if PurePosixPath(name).suffix.lower() in SUFFIXES]
    labelled = [(str(image), image.parent.name) for image in images if image.parent.name]
    if not labelled:
        raise ResnestError(f"no images in {path}: expected CLASS/image.jpg in it")
    return sorted(labelled)


def read_zip(path: Path) -> LabelledSamples:
    return number_classes(ZipStore(path), scan_zip(path), path.parent)


def read_npz(path: Path) -> LabelledSamples:
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
    return LabelledSamples(BytesStore(record["jpeg"], offsets), keys, class_names, labels)


@dataclass(frozen=True)
class CsvRow:
    """A line of a CSV file; labels are a tuple in every line if the file is multi-label."""

    path: str
    label: str | tuple[str, ...]
    split: str | None


def read_csv_rows(path: Path) -> list[CsvRow]:
    """The lines of a CSV file. It is multi-label if its column is called `labels`, or if a label contains `|`.

    Raises:
        ResnestError: no CSV file, a column missing, a line without path or label, a duplicate label.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            columns = [name for name in table.fieldnames or () if name is not None]
            rows = [(table.line_num, row) for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ResnestError(f"{path} cannot be read as CSV: {error}") from None
    path_column = next((name for name in ("path", "file") if name in columns), None)
    label_column = next((name for name in ("labels", "label") if name in columns), None)
    if path_column is None or label_column is None:
        raise ResnestError(
            f"{path} needs the columns path and label (or labels) in its first line, it has:"
            f" {', '.join(columns) or 'none'}"
        )
    if not rows:
        raise ResnestError(f"{path} has no line below its first one")
    several = label_column == "labels" or any(SEVERAL in (row[label_column] or "") for _, row in rows)
    parsed = []
    for number, row in rows:
        where, label = f"{path}, line {number}", row[label_column] or ""
        if not row[path_column] or not (label or several):
            raise ResnestError(f"{where}: path or label is empty (a column called labels may be)")
        split = (row["split"] or "") if "split" in columns else None
        parsed.append(CsvRow(row[path_column], _label_set(label, where) if several else label, split))
    return parsed


def _label_set(text: str, where: str) -> tuple[str, ...]:
    """ "cat|dog" -> ("cat", "dog"); an empty field has no label."""
    labels = tuple(label.strip() for label in text.split(SEVERAL)) if text.strip() else ()
    if not all(labels):
        raise ResnestError(f"{where}: an empty label in {text!r}")
    twice = [label for number, label in enumerate(labels) if label in labels[:number]]
    if twice:
        raise ResnestError(f"{where}: the label {twice[0]!r} is listed twice")
    return labels


def read_csv(path: Path) -> LabelledSamples:
    return number_csv(path, read_csv_rows(path))


def number_csv(path: Path, rows: Sequence[CsvRow]) -> LabelledSamples:
    """The samples of some lines; their paths are relative to the file."""
    return number_classes(FolderStore(path.parent), [(row.path, row.label) for row in rows], path.parent)


def read_digits() -> LabelledSamples:
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
    return LabelledSamples(BytesStore(content, offsets), keys, tuple("0123456789"), digits.target.astype(np.int64))


def number_classes(store: Store, labelled: Labelled, names: Mapping[str, str] | Path) -> LabelledSamples:
    """Number the classes in sorted order, integers by value, and name them.

    Args:
        names: names of the classes, or the folder that may have a list of them.
    """
    several = any(isinstance(label, tuple) for _, label in labelled)
    sets = [label if isinstance(label, tuple) else (label,) for _, label in labelled]
    classes = {label for labels in sets for label in labels}
    numeric = all(label.isdigit() for label in classes)
    ordered = sorted(classes, key=int) if numeric else sorted(classes)
    index = {label: number for number, label in enumerate(ordered)}
    known = read_class_names(names) if isinstance(names, Path) else names
    if several:
        numbers = np.zeros((len(sets), len(ordered)), bool)
        for row, labels in zip(numbers, sets, strict=True):
            row[[index[label] for label in labels]] = True
    else:
        numbers = np.array([index[label] for (label,) in sets], np.int64)
    return LabelledSamples(store, [key for key, _ in labelled], _display_names(ordered, known), numbers)


def read_class_names(folder: Path) -> dict[str, str]:
    """Names by class key from `classes.json` or `classnames.txt` in a folder; empty if there is no such list.

    The latter has one name per line; a broken `classes.json` is ignored.
    """
    with suppress(OSError, ValueError):
        rows = class_rows((folder / "classes.json").read_text(encoding="utf-8-sig"))
        return {str(row[key]): str(row["name"]) for row in rows for key in ("synset", "index") if key in row}
    try:
        lines = (folder / "classnames.txt").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    return {str(index): line.strip() for index, line in enumerate(lines) if line.strip()}


def class_rows(text: str) -> list[dict[str, Any]]:
    """The rows of a `classes.json`: each has a `name`, and a `synset`, an `index` or both.

    The file holds such rows (`id` or `value` do for `index`, and so does the place of a row that has no key), a list of
    names, or {key: name}. Raises ValueError.
    """
    content = json.loads(text)
    if isinstance(content, dict):
        return [{"index": key, "name": name} for key, name in content.items()]
    if not isinstance(content, list) or not content:
        raise ResnestError("expected a list of classes")
    if all(isinstance(row, str) for row in content):
        return [{"index": index, "name": name} for index, name in enumerate(content)]
    rows = []
    for index, row in enumerate(content):
        if not isinstance(row, dict) or "name" not in row:
            raise ResnestError(f"row {index} ({json.dumps(row)[:60]}) has no name")
        numbers = [row[key] for key in ("index", "id", "value") if key in row]
        numbers += [] if "synset" in row else [index]
        rows.append({**row, "index": numbers[0]} if numbers else row)
    return rows


def _display_names(classes: Sequence[str], names: Mapping[str, str]) -> tuple[str, ...]:
    if len({names.get(label) for label in classes} - {None}) < len(classes):
        return tuple(classes)  # not for these classes, or two of them share a name
    return tuple(names[label] for label in classes)
