"""Format detection of data sets.

First match wins:
1. the word `digits`; `hf:owner/name`, a data set of the Hugging Face hub;
2. a .zip, .npz, .csv, .tar, .parquet or .json file;
3. a folder that `datasets.save_to_disk` wrote;
4. a format of a task's own: COCO json, Pascal VOC xml, then panoptic json, then masks (each task's `checks.py`);
5. a folder with parts (`parts`), such as `train` and `val`, as folders of classes, zips, npz or csv files, or with
   `val` alone;
6. a folder with `labels.csv`;
7. a folder of .tar or .parquet files, here, in `data`, or in folders named by split; without a training and a
   validation split only if it has no folders of classes;
8. a folder of classes.

Where a task reads no labelled images (`TaskInfo.reads_labels`), its own formats alone count, so that a folder with
annotations of several kinds serves each task. A format that is named is the only one that is looked for.

Where there is no validation part, the test part is used as one. Data without splits is split reproducibly.

    handle = detect_format("flowers", "auto")
    handle.format, handle.train, handle.val, handle.unsplit      # functions that read, or None
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

from resnest.data.csv_lists import read_columns, read_csv, read_csv_parts
from resnest.data.folders import has_class_folders, is_of, list_files, only_folder
from resnest.data.grouping import Columns
from resnest.data.hub_sets import PREFIX, look_up
from resnest.data.layout import INNER, find_layout, is_of_classes
from resnest.data.listing import FolderTree, is_ignored
from resnest.data.parquet import read_arrow, read_parquet
from resnest.data.parts import (
    TITLES,
    Parts,
    SplitFiles,
    choose_parts,
    choose_splits,
    not_read,
    note_of_others,
    note_of_test,
)
from resnest.data.readers import (
    Archive,
    number_csv,
    read_digits,
    read_folder,
    read_npz,
    read_zip,
    scan_zip,
)
from resnest.data.samples import LabelledSamples
from resnest.data.shards import read_shards, scan_shards
from resnest.errors import ResnestError, unknown
from resnest.tasks import TASKS, TaskInfo, load_object, task_info

Read = Callable[[], Any]  # -> Samples
READERS = ("train", "val", "test", "unsplit")  # of a `DatasetHandle`
LABELLED = ("folder", INNER, "zip", "npz", "csv", "tar", "parquet", "arrow", "digits")  # formats of images with labels
LABELS_FILE = "labels.csv"
EXPECTED = "give a folder, a .zip, .npz, .csv, .tar, .parquet, COCO .json or YOLO .yaml file"


@dataclass(frozen=True)
class DatasetHandle:
    """A data set's readers: for its splits, or for the whole."""

    format: str
    where: str
    train: Read | None = None
    val: Read | None = None
    unsplit: Read | None = None
    test: Read | None = None  # perhaps the same as `val`
    notes: tuple[str, ...] = ()  # on the parts, and what is beside them
    columns: Columns | None = None  # of its lists, which may say what belongs together


@dataclass(frozen=True)
class Finder:
    """Recognises a task's own format, of a folder or a file."""

    format: str
    tasks: tuple[str, ...]  # that this format has annotations for
    find: Callable[[Path, str | None], DatasetHandle | None]  # path, the task that is asked for
    suffixes: tuple[str, ...] = ()  # of a file that may be a data set of this format
    first: bool = False  # looked for before other tasks' formats
    last: bool = False  # looked for after all tasks' formats; "" is its format if it only refuses
    reading: str = ""  # the setting of a recipe that reads data so, where its task has several ways; "": the usual one


# Formats with one file a split, and those with one file or several
ONE: dict[str, Callable[[dict[str, Path]], dict[str, Read]]] = {  # files by part -> their readers
    "zip": lambda files: {part: partial(read_zip, file) for part, file in files.items()},
    "npz": lambda files: {part: partial(read_npz, file) for part, file in files.items()},
    "csv": lambda files: {
        part: partial(number_csv, files[part], table.parts[""], table.notes)
        for part, table in read_csv_parts(files).items()
    },
}
SEVERAL: dict[str, Callable[[Sequence[Path]], LabelledSamples]] = {"parquet": read_parquet, "tar": read_shards}


@cache
def finders(reading: str | None = "") -> tuple[Finder, ...]:
    """The finders of all tasks for a way of reading, None: for any, in the order in which they are tried."""
    listed = [where for task in TASKS if (where := task_info(task).finders)]
    every = [finder for where in listed for finder in load_object(where) if reading in (None, finder.reading)]
    return tuple(sorted(every, key=lambda finder: (finder.last, not _with_labels(finder), not finder.first)))


def all_formats() -> tuple[str, ...]:
    """Values of `format`."""
    return tuple(dict.fromkeys([*LABELLED, *(finder.format for finder in finders(None) if finder.format)]))


def detect_format(where: str | Path, format: str, task: str | None = None, reading: str = "") -> DatasetHandle:
    """Detect the format; `reading` as in `Finder`.

    Raises:
        ResnestError: nothing there, an unknown or another format, no data for that task.
    """
    if format not in ("auto", *all_formats()):
        raise unknown("data format", format, all_formats())
    info = task_info(task) if task else None
    path = Path(where)
    if not path.exists():
        if str(where) == "digits":
            return DatasetHandle("digits", "digits", unsplit=read_digits)
        if str(where).startswith(PREFIX):
            return _find_on_hub(str(where), format)
        raise ResnestError(f"there is no data at {path}: {EXPECTED}, {PREFIX}OWNER/NAME of the hub, or 'digits'")
    if info and not info.reads_labels:
        own = [finder for finder in finders(reading) if info.name in finder.tasks]
        return _find_annotated(path, format, task, own, info)
    named = [finder for finder in finders(reading) if finder.format == format]
    if named and not any(map(_with_labels, named)):
        return _find_annotated(path, format, task, named, task_info(named[0].tasks[-1]))
    if path.is_file():
        return _find_in_file(path, format)
    if format != "auto":
        return _find_in_folder(path, format)
    handle: DatasetHandle = _beside_classes(path, partial(_find_in_folder, path, format))()
    if handle.format == "folder":
        return handle
    reads: dict[str, Any] = {part: _beside_classes(path, read) for part in READERS if (read := getattr(handle, part))}
    return replace(handle, **reads)


def _beside_classes(path: Path, read: Callable[[], Any]) -> Callable[[], Any]:
    """Its errors say how to read the class folders that are there, too, beside a file that cannot be read."""

    def read_or_say() -> Any:
        try:
            return read()
        except ResnestError as error:
            if "data.format" not in str(error) and is_of_classes(FolderTree(path)):
                raise ResnestError(f"{error}; to read the folders of classes there, set data.format=folder") from None
            raise

    return read_or_say


def _with_labels(finder: Finder) -> bool:
    """Whether folders of labelled images are also searched for this task."""
    return task_info(finder.tasks[0]).reads_labels


def _find_annotated(path: Path, format: str, task: str | None, own: list[Finder], info: TaskInfo) -> DatasetHandle:
    for place in filter(None, (path, only_folder(path))):
        for finder in own:
            if format in ("auto", finder.format) and (handle := finder.find(place, task)):
                return handle
    kind = f"of format {format!r}" if format != "auto" else f"with {info.annotations}"
    instead = _data_of_others(path, own) if format == "auto" else ""
    raise ResnestError(f"{path} holds no images {kind}: expected {info.layout}{instead}")


def _data_of_others(path: Path, own: Sequence[Finder]) -> str:
    """What there is for other tasks, for a message; "" if nothing is recognised."""
    for finder in (finder for finder in finders(None) if finder not in own):
        for place in filter(None, (path, only_folder(path))):
            try:
                handle = finder.find(place, None)
            except ResnestError as error:
                if finder.last:
                    return f". {error}"
                continue
            if handle and finder.reading:
                return f". There is {handle.format} data, which is read with {finder.reading}"
            if handle:
                task = finder.tasks[0]
                return (
                    f". There is {handle.format} data, which is for {task}: export it in that layout, or take a recipe"
                    f" or a model for {task} (`resnest recipes`)"
                )
    return ""


def _find_in_file(path: Path, format: str) -> DatasetHandle:
    kind = path.suffix.lower().lstrip(".") if format == "auto" else format
    for finder in finders():
        fits = path.suffix.lower() in finder.suffixes if format == "auto" else format == finder.format
        if finder.suffixes and fits and (handle := finder.find(path, None)):
            return handle
    if kind in ("zip", INNER) and path.suffix.lower() == ".zip":
        return _of_archive("zip", str(path), scan_zip(path, inner=kind == INNER))
    if kind == INNER:
        raise ResnestError(f"{path}: data.format={INNER} reads folders and zip files: unpack it")
    if kind == "npz":
        return DatasetHandle(kind, str(path), unsplit=lambda: read_npz(path))
    if kind == "csv":
        return _find_in_csv(path, str(path))
    for several in SEVERAL:
        if kind == several or (format == "auto" and is_of(several, path.name)):
            return _by_split(several, str(path), SplitFiles([], [], [path.name], []), path.parent)
    raise ResnestError(f"{path} is not a data set: {EXPECTED}")


def _find_in_folder(path: Path, format: str) -> DatasetHandle:
    if format in ("auto", "arrow") and (saved := _find_saved(path)):
        return saved
    for place in filter(None, (path, only_folder(path))):
        for finder in finders():
            if format in ("auto", finder.format) and (annotated := finder.find(place, None)):
                return annotated
    folders = _find_class_folders(path, inner=format == INNER) if format in ("auto", "folder", INNER) else None
    if folders and folders.val and folders.where == str(path):
        return _beside_list(path, folders)
    for kind in ONE:
        if format in ("auto", kind) and (parts := _find_part_files(path, kind)):
            return parts
    if format in ("auto", "csv") and (path / LABELS_FILE).is_file():
        return _find_in_csv(path / LABELS_FILE, str(path))
    for kind in SEVERAL:
        names = list_files(path, kind) if format in ("auto", kind) else []
        files = choose_splits(names)
        if names and (format == kind or (files.train and files.val) or not has_class_folders(path)):
            return _by_split(kind, str(path), files, path, names)
    if folders:
        return folders
    raise ResnestError(f"{path} holds no data set of format {format!r} (looked for train and val in it)")


def _find_on_hub(reference: str, format: str) -> DatasetHandle:
    data = look_up(reference, [format] if format in SEVERAL else list(SEVERAL))
    return _by_split(data.kind, data.where, choose_splits(data.names), data.fetch, data.names)


def handle_of_parts(
    kind: str, where: str, files: SplitFiles, read: Callable[[list[str]], Read], notes: tuple[str, ...] = ()
) -> DatasetHandle:
    """The handle of files that have a validation part; `read` makes the reader of a part's files."""
    own = {"train": files.train, "val": files.val if files.val != files.test else [], "test": files.test}
    called = files.test[0] if len(files.test) == 1 else "test"
    return _of_readers(kind, where, {part: read(names) for part, names in own.items() if names}, notes, called)


def handle_of_folders(kind: str, root: Path, parts: Parts, read: Callable[[str], Read]) -> DatasetHandle:
    """The handle of folders that are parts; `read` makes the reader of one, by its name."""
    reads = {part: read(name) for part in TITLES if (name := getattr(parts, part))}
    notes = note_of_others(parts.others)
    if reads.keys() == {"train"}:
        return DatasetHandle(kind, str(root), unsplit=reads["train"], notes=notes)
    return _of_readers(kind, str(root), reads, notes, parts.test or "")


def _of_readers(
    kind: str, where: str, reads: Mapping[str, Read], notes: tuple[str, ...] = (), test: str = "test"
) -> DatasetHandle:
    """The handle of readers by part; `test` is what that part is called."""
    if "val" not in reads:
        notes = (note_of_test(test), *notes)
    val = reads.get("val") or reads["test"]
    return DatasetHandle(kind, where, train=reads.get("train"), val=val, test=reads.get("test"), notes=notes)


def _by_split(
    kind: str, where: str, files: SplitFiles, source: Path | Callable[[str], Path], names: Sequence[str] = ()
) -> DatasetHandle:
    """Files of a format with several per split; `source` is their folder, or downloads one of them."""

    def read(names: list[str]) -> Read:
        return lambda: SEVERAL[kind]([source / name if isinstance(source, Path) else source(name) for name in names])

    if files.val:
        return handle_of_parts(kind, where, files, read, not_read(names, files))
    unread = not_read(names, files)
    if kind == "tar" and isinstance(source, Path):  # folders inside may be named by split
        return _of_archive(kind, where, scan_shards([source / name for name in files.unsplit]), unread)
    return DatasetHandle(kind, where, unsplit=read(files.unsplit), notes=unread)


def _find_saved(path: Path) -> DatasetHandle | None:
    """Output of `datasets.save_to_disk`: one data set, or several with a list of their names."""
    if (path / "state.json").is_file() and (path / "dataset_info.json").is_file():
        return DatasetHandle("arrow", str(path), unsplit=lambda: read_arrow([path]))
    try:
        names = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        files = choose_splits(names := [PurePosixPath(name).name for name in names])
    except OSError:
        return None
    except (ValueError, KeyError, TypeError):
        raise ResnestError(f"{path / 'dataset_dict.json'} does not list the splits of a saved data set") from None

    def read(names: list[str]) -> Read:
        return lambda: read_arrow([path / name for name in names])

    if not files.val:
        if len(files.unsplit) != 1:
            raise ResnestError(
                f"{path} has the splits {', '.join(files.unsplit) or '(none)'}: none of them is train or val"
            )
        return DatasetHandle("arrow", str(path), unsplit=read(files.unsplit))
    return handle_of_parts("arrow", str(path), files, read, not_read(names, files))


def _find_class_folders(path: Path, *, inner: bool) -> DatasetHandle | None:
    """Class folders, in parts or not; None if a list of files says more about them."""
    try:
        layout = find_layout(FolderTree(path), inner=inner)
    except ResnestError:
        if (path / LABELS_FILE).is_file():
            return None
        raise
    base = path / layout.base  # the path itself, but for a folder that is alone in it
    names_in = [base, *(above for above in base.parents if above == path or path in above.parents)]

    def read(folder: str | None, *, may_lack: bool = False) -> Read | None:
        if folder is None:
            return None
        return partial(read_folder, path / folder, names_in=names_in, may_lack=may_lack, inner=inner)

    if layout.has_parts:
        train, val, test = read(layout.train), read(layout.val, may_lack=True), read(layout.test, may_lack=True)
        return DatasetHandle("folder", str(base), train=train, val=val, test=test, notes=layout.notes)
    return DatasetHandle("folder", str(base), unsplit=read(layout.base), notes=layout.notes)


def _beside_list(path: Path, folders: DatasetHandle) -> DatasetHandle:
    """Parts with class folders, with a note on a list of files that is not read."""
    if not (path / LABELS_FILE).is_file():
        return folders
    note = f"not read: {LABELS_FILE}, as the folders have parts and classes; data.format=csv reads it"
    return replace(folders, notes=(*folders.notes, note))


def _find_part_files(folder: Path, kind: str) -> DatasetHandle | None:
    """One file a part; a validation part alone only if there is nothing else."""
    files = {
        file.stem: file
        for file in folder.iterdir()
        if file.suffix.lower() == f".{kind}" and file.is_file() and not is_ignored(file.name)
    }
    parts = choose_parts(files, str(folder))
    if parts is None or (parts.train is None and any(child.is_dir() for child in folder.iterdir())):
        return None
    chosen = {part: files[name] for part in TITLES if (name := getattr(parts, part))}
    others = note_of_others(files[name].name for name in parts.others)
    test = chosen["test"].name if "test" in chosen else ""
    handle = _of_readers(kind, str(folder), ONE[kind](chosen), others, test)
    return replace(handle, columns=_columns(*chosen.values())) if kind == "csv" else handle


def _find_in_csv(path: Path, where: str) -> DatasetHandle:
    table = read_csv(path)
    reads = {part: partial(number_csv, path, rows, table.notes) for part, rows in table.parts.items()}
    if "" in reads:
        return DatasetHandle("csv", where, unsplit=reads[""], columns=_columns(path))
    if reads.keys() == {"train"}:
        raise ResnestError(f"{path}: the column of parts must hold both train and val")
    return replace(_of_readers("csv", where, reads), columns=_columns(path))


def _columns(*files: Path) -> Columns:
    names = [read_columns(file) for file in files]
    return Columns(files, tuple(name for name in names[0] if all(name in other for other in names)))


def _of_archive(kind: str, where: str, archive: Archive, notes: tuple[str, ...] = ()) -> DatasetHandle:
    layout, notes = archive.layout, (*archive.layout.notes, *notes)
    if layout.train is None:  # a single part is the whole
        part = "val" if layout.has_parts else ""
        return DatasetHandle(kind, where, unsplit=partial(archive.read, part), notes=notes)
    train, val, test = (
        partial(archive.read, part, may_lack=part != "train") if getattr(layout, part) is not None else None
        for part in ("train", "val", "test")
    )
    return DatasetHandle(kind, where, train=train, val=val, test=test, notes=notes)
