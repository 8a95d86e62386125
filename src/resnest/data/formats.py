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

import contextlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

from resnest.checkpoints import hub
from resnest.checkpoints.fetch import is_offline
from resnest.data.csv_lists import read_csv, read_csv_parts
from resnest.data.folders import has_class_folders, is_of, list_files, only_folder
from resnest.data.layout import find_layout, is_of_classes
from resnest.data.listing import FolderTree, is_ignored
from resnest.data.parquet import read_arrow, read_parquet
from resnest.data.parts import (
    PART_OF,
    TITLES,
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
from resnest.files import cache_folder, write_atomically, write_errors
from resnest.tasks import TASKS, TaskInfo, load_object, task_info

# --- Data sets of the Hugging Face hub: their parquet files, or tar shards, downloaded into the hub's own cache.
# `hf:OWNER/NAME`, with `/FOLDER` where the repository holds several data sets, and `@REVISION`. The hub's listing of a
# repository is cached, so that it opens without the network once its files are there (RESNEST_OFFLINE, HF_HUB_OFFLINE).

PREFIX = "hf:"
_REFERENCE = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+?)(?:/(?P<folder>[^@]+?))?/?(?:@(?P<revision>.+))?")


@dataclass(frozen=True)
class Remote:
    """Files of one format in a repository, at one commit."""

    kind: str
    repo: str
    folder: str
    commit: str
    names: list[str]

    @property
    def where(self) -> str:
        """A reference pinned to this commit."""
        return f"{PREFIX}{self.repo}{self.folder and '/'}{self.folder}@{self.commit}"

    def fetch(self, name: str) -> Path:
        """The local path of a file, downloaded if it is not in the hub's cache."""
        try:
            return hub.download(self.repo, name, revision=self.commit, kind="dataset", offline=is_offline())
        except hub.HubError as error:
            what = "is not in the hub's cache, and the network is off" if is_offline() else f"did not come: {error}"
            raise ResnestError(f"{self.where}: {name} {what}") from None


def look_up(reference: str, kinds: Sequence[str]) -> Remote:
    """The files of the first kind in the repository.

    Raises:
        ResnestError: not such a reference, no such repository, no network and not looked up before, no files of these
            kinds, or several data sets in it.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ResnestError(f"{reference} is no data set of the hub: expected hf:OWNER/NAME, hf:OWNER/NAME@REVISION")
    repo, folder, revision = match["repo"], match["folder"] or "", match["revision"]
    commit, names = _listing(reference, repo, revision)
    for kind in kinds:
        files = [name for name in names if is_of(kind, name) and (not folder or name.startswith(f"{folder}/"))]
        if files:
            _check_single_folder(reference, repo, files)
            return Remote(kind, repo, folder, commit, files)
    within = f" in its folder {folder}" if folder else ""
    raise ResnestError(
        f"{reference} has no {' or '.join(kinds)} file{within}; the hub converts many data sets to parquet at"
        f" {PREFIX}{repo}@refs/convert/parquet"
    )


def _check_single_folder(reference: str, repo: str, names: Sequence[str]) -> None:
    folders = {PurePosixPath(name).parent for name in names}
    bases = sorted({str(folder.parent if folder.name.lower() in PART_OF else folder) for folder in folders})
    if len(bases) > 1:
        raise ResnestError(
            f"{reference} holds {len(bases)} data sets: choose one, as in {PREFIX}{repo}/{bases[0]}"
            f" ({', '.join(bases[:5])}{', ...' if len(bases) > 5 else ''})"
        )


def _listing(reference: str, repo: str, revision: str | None) -> tuple[str, list[str]]:
    """Commit and file names of a repository: from the hub, or as cached if offline."""
    note = _note(repo, revision or "main")
    if not is_offline():
        try:
            commit, names = hub.dataset_files(repo, revision)
        except hub.HubError as error:
            raise ResnestError(f"{reference} cannot be opened: {error}") from None
        with write_errors(note.parent):
            for path in (note, _note(repo, commit)):
                write_atomically(path, json.dumps({"commit": commit, "files": names}).encode())
        return commit, names
    try:
        content = json.loads(note.read_bytes())
        return str(content["commit"]), [str(name) for name in content["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise ResnestError(f"{reference} has not been opened before, and the network is off") from None


def _note(repo: str, revision: str) -> Path:
    return cache_folder() / "hub" / (re.sub(r"[^\w.-]", "--", f"{repo}@{revision}") + ".json")


Read = Callable[[], Any]  # -> Samples
READERS = ("train", "val", "test", "unsplit")  # of a `DatasetHandle`
LABELLED = ("folder", "zip", "npz", "csv", "tar", "parquet", "arrow", "digits")  # formats of images with labels
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


@dataclass(frozen=True)
class Finder:
    """Recognises a task's own format, of a folder or a file."""

    format: str
    tasks: tuple[str, ...]  # that this format has annotations for
    find: Callable[[Path, str | None], DatasetHandle | None]  # path, the task that is asked for
    suffixes: tuple[str, ...] = ()  # of a file that may be a data set of this format
    first: bool = False  # looked for before other tasks' formats
    last: bool = False  # looked for after all tasks' formats; "" is its format if it only refuses


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
def finders() -> tuple[Finder, ...]:
    """The finders of all tasks, in the order in which they are tried."""
    listed = [where for task in TASKS if (where := task_info(task).finders)]
    every = [finder for where in listed for finder in load_object(where)]
    return tuple(sorted(every, key=lambda finder: (finder.last, not _with_labels(finder), not finder.first)))


def all_formats() -> tuple[str, ...]:
    """Values of `format`."""
    return tuple(dict.fromkeys([*LABELLED, *(finder.format for finder in finders() if finder.format)]))


def detect_format(where: str | Path, format: str, task: str | None = None) -> DatasetHandle:
    """Detect the format. Raises ResnestError: nothing there, an unknown or another format, no data for that task."""
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
        own = [finder for finder in finders() if info.name in finder.tasks]
        return _find_annotated(path, format, task, own, info)
    named = [finder for finder in finders() if finder.format == format]
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
    raise ResnestError(f"{path} holds no images {kind}: expected {info.layout}{_for_others(path, own)}")


def _for_others(path: Path, own: Sequence[Finder]) -> str:
    """Annotations for other tasks, for the end of a message."""
    asked = {task for finder in own for task in finder.tasks}
    for finder in (one for one in finders() if one.format and not asked & set(one.tasks)):
        with contextlib.suppress(ResnestError):
            if finder.find(path, None):
                return f". There are annotations for {' and '.join(finder.tasks)}, as {finder.format!r}"
    return ""


def _find_in_file(path: Path, format: str) -> DatasetHandle:
    kind = path.suffix.lower().lstrip(".") if format == "auto" else format
    for finder in finders():
        fits = path.suffix.lower() in finder.suffixes if format == "auto" else format == finder.format
        if finder.suffixes and fits and (handle := finder.find(path, None)):
            return handle
    if kind == "zip":
        return _of_archive(kind, str(path), scan_zip(path))
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
    folders = _find_class_folders(path) if format in ("auto", "folder") else None
    if folders and folders.val and folders.where == str(path):
        return folders
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


def _find_class_folders(path: Path) -> DatasetHandle | None:
    """Class folders, in parts or not; None if a list of files says more about them."""
    try:
        layout = find_layout(FolderTree(path))
    except ResnestError:
        if (path / LABELS_FILE).is_file():
            return None
        raise
    base = path / layout.base  # the path itself, but for a folder that is alone in it
    names_in = [base, *(above for above in base.parents if above == path or path in above.parents)]

    def read(folder: str | None, *, may_lack: bool = False) -> Read | None:
        if folder is None:
            return None
        return partial(read_folder, path / folder, names_in=names_in, may_lack=may_lack)

    if layout.has_parts:
        train, val, test = read(layout.train), read(layout.val, may_lack=True), read(layout.test, may_lack=True)
        return DatasetHandle("folder", str(base), train=train, val=val, test=test, notes=layout.notes)
    return DatasetHandle("folder", str(base), unsplit=read(layout.base), notes=layout.notes)


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
    return _of_readers(kind, str(folder), ONE[kind](chosen), others, test)


def _find_in_csv(path: Path, where: str) -> DatasetHandle:
    table = read_csv(path)
    reads = {part: partial(number_csv, path, rows, table.notes) for part, rows in table.parts.items()}
    if "" in reads:
        return DatasetHandle("csv", where, unsplit=reads[""])
    if reads.keys() == {"train"}:
        raise ResnestError(f"{path}: the column of parts must hold both train and val")
    return _of_readers("csv", where, reads)


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
