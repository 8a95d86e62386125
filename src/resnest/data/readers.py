"""Readers of labelled images, one per format: a file or folder to `LabelledSamples`.

samples = read_folder(Path("photos"))       # class folders
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from resnest.data.class_names import LISTS, class_text, name_classes, parse_class_names, read_class_names
from resnest.data.layout import MOST_NAMED, Layout, find_layout, label_by_folder
from resnest.data.listing import START, ArchiveTree, Listing, is_bands_start, is_ignored, list_images, nothing_found
from resnest.data.samples import LabelledSamples
from resnest.data.stores import BytesStore, FolderStore, Store, ZipStore
from resnest.errors import ResnestError

# A labelled file before classes are numbered: (key, class key), or (key, class keys) in multi-label data
Labelled = Sequence[tuple[str, str | tuple[str, ...]]]


def read_folder(
    folder: Path, *, names_in: Sequence[Path] = (), may_lack: bool = False, inner: bool = False
) -> LabelledSamples:
    """Class folders; a list of their names may be in the folder above, or in `names_in`.

    Args:
        may_lack: an empty class folder is no error, as in a validation part.
        inner: the classes are the last folders, not the first.
    """
    listing = list_images(folder, is_bands_start).without_arrays()
    images = [(name, name) for name in listing.images]
    labelled, notes = _in_class_folders(listing, images, "", may_lack=may_lack, inner=inner)
    return number_classes(
        FolderStore(folder), labelled, read_class_names(*(names_in or (folder.parent,))), (*notes, *listing.notes())
    )


def _in_class_folders(
    listing: Listing, images: Sequence[tuple[str, str]], base: str, *, may_lack: bool, inner: bool
) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """Labelled by their folders. Raises ResnestError for no image, or a class without any.

    Args:
        images: key and path below the folder of the classes, which is `base` in the listing.
        may_lack: an empty class folder is no error.
    """
    where = f"{listing.where}/{base}" if base else listing.where
    found = label_by_folder(images, where, inner=inner)
    if not found.labelled:
        why = "; ".join(found.notes) or nothing_found(listing)
        raise ResnestError(f"no images in {where}: expected one folder per class, {where}/CLASS/image.jpg ({why})")
    start = f"{base}/" if base else ""
    below = {folder.removeprefix(start).split("/")[0] for folder in listing.folders if folder.startswith(start)}
    classes = {name for _, name in found.labelled}
    empty = sorted(below - classes - {""}) if not inner else []
    for name in empty:
        beside = listing.below(f"{start}{name}")
        if beside.reasons or not may_lack:
            raise ResnestError(f"class {name!r} has no image in {where}/{name} ({nothing_found(beside)})")
    shown = ", ".join(map(repr, empty[:MOST_NAMED])) + (", ..." if len(empty) > MOST_NAMED else "")
    return found.labelled, (*found.notes, *((f"empty: the folder of class {shown}",) if empty else ()))


# --- archives: zip and tar files of class folders ---


@dataclass(frozen=True)
class Archive:
    """The images of an archive before their classes are numbered."""

    store: Store
    listing: Listing  # what was left out
    layout: Layout
    names: Mapping[str, str]  # what a list of classes calls them
    images: Sequence[tuple[str, str]]  # key and path
    given: Mapping[str, str] = field(default_factory=dict)  # key -> label, where it does not follow from folders
    inner: bool = False  # the classes are the last folders

    def read(self, part: str = "", *, may_lack: bool = False) -> LabelledSamples:
        """The images of a part, or those of an archive without parts; `may_lack` as for `read_folder`."""
        base = (getattr(self.layout, part) if part else self.layout.base) or ""
        start = f"{base}/" if base else ""
        images = [(key, path[len(start) :]) for key, path in self.images if path.startswith(start)]
        labelled, notes = [(key, self.given[key]) for key, _ in images if key in self.given], tuple[str, ...]()
        if len(labelled) < len(images) or not images:
            by_folder, notes = _in_class_folders(
                self.listing,
                [(key, path) for key, path in images if key not in self.given],
                base,
                may_lack=may_lack,
                inner=self.inner,
            )
            labelled += by_folder
        return number_classes(self.store, labelled, self.names, (*notes, *self.listing.notes()))


def scan_zip(path: Path, *, inner: bool = False) -> Archive:
    listing = Listing(str(path), also=is_bands_start)
    members: dict[str, str] = {}  # path -> name in the file
    lists: dict[str, str] = {}  # the same of lists of classes, by their folder
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                name = "/".join(part for part in info.filename.replace("\\", "/").split("/") if part not in ("", "."))
                if info.is_dir() or info.filename.endswith("\\"):
                    if not any(map(is_ignored, name.split("/"))):
                        listing.folders.add(name)
                elif any(map(is_ignored, name.split("/"))):
                    listing.leave_out(name, "")
                elif name in members:
                    listing.leave_out(name, "twice in the file")
                else:
                    members[name] = info.filename
                    listing.add(name, partial(_start_of, archive, info))
                    if PurePosixPath(name).name in LISTS:
                        lists[name.rpartition("/")[0]] = info.filename
    except (zipfile.BadZipFile, OSError) as error:
        raise ResnestError(f"{path} is not a readable zip file: {error}") from None
    layout = find_layout(ArchiveTree(str(path), listing.images, listing.folders), inner=inner)
    store = ZipStore(path)
    names = _names_in_zip(store, lists, layout.base) or read_class_names(path.parent)
    return Archive(
        store, listing, layout, names, [(members[name], name) for name in sorted(listing.images)], inner=inner
    )


def _start_of(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as member:
        return member.read(START)


def _names_in_zip(store: ZipStore, lists: Mapping[str, str], base: str) -> dict[str, str]:
    """Names by class key from a list in the zip, in the folder of the classes or above it."""
    while base and base not in lists:
        base = base.rpartition("/")[0]
    if base not in lists:
        return {}
    try:
        return parse_class_names(lists[base], store.read(lists[base]))
    except (OSError, ValueError, RuntimeError, RecursionError) as error:
        raise ResnestError(f"{store.path}: {lists[base]} is no list of class names: {error}") from None


def read_zip(path: Path) -> LabelledSamples:
    """The whole of a zip file that is one part."""
    archive = scan_zip(path)
    if archive.layout.train is not None:
        raise ResnestError(f"{path} has parts in it: give it as the data itself")
    return archive.read("val" if archive.layout.has_parts else "")


def number_csv(path: Path, labelled: Labelled, notes: Sequence[str]) -> LabelledSamples:
    """The samples of some images in a CSV file."""
    return number_classes(FolderStore(path.parent), labelled, read_class_names(path.parent), notes)


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
    class_names = tuple(class_text(str(name)) for name in record["classes"])
    if len(set(class_names)) < len(class_names):
        raise ResnestError(f"{path}: two of its classes have the same name")
    if labels.size and not 0 <= labels.min() <= labels.max() < len(class_names):
        raise ResnestError(f"{path}: labels reach {labels.max()}, but there are {len(class_names)} classes")
    keys = [f"{index:06d}" for index in range(len(labels))]
    return LabelledSamples(BytesStore(record["jpeg"], offsets), keys, class_names, labels)


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


def number_classes(
    store: Store, labelled: Labelled, known: Mapping[str, str], notes: Sequence[str] = ()
) -> LabelledSamples:
    """Number the classes in their order, and name them.

    Args:
        known: names of the classes, by their keys; others are not used.
        notes: on how the data was read.
    """
    several = any(isinstance(label, tuple) for _, label in labelled)
    sets = [
        tuple(map(class_text, label)) if isinstance(label, tuple) else (class_text(label),) for _, label in labelled
    ]
    classes = name_classes({label for labels in sets for label in labels}, known)
    index = {label: number for number, label in enumerate(classes.keys)}
    if several:
        numbers = np.zeros((len(sets), len(classes.keys)), bool)
        for row, labels in zip(numbers, sets, strict=True):
            row[[index[label] for label in labels]] = True
    else:
        numbers = np.array([index[label] for (label,) in sets], np.int64)
    return LabelledSamples(
        store,
        [key for key, _ in labelled],
        classes.names,
        numbers,
        class_keys=() if classes.names == tuple(classes.keys) else tuple(classes.keys),
        notes=tuple(dict.fromkeys((*notes, *classes.notes))),
    )
