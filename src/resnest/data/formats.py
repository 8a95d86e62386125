"""Format detection of data sets.

First match wins:
1. the word `digits`; `hf:owner/name`, a data set of the Hugging Face hub;
2. a .zip, .npz, .csv, .tar, .parquet or .json file;
3. a folder that `datasets.save_to_disk` wrote;
4. a format of a task's own: COCO json, Pascal VOC xml, then panoptic json, then masks (each task's `checks.py`);
5. a folder with `train` and `val` as folders of classes, zips, npz or csv files, or with `val` alone;
6. a folder with `labels.csv`;
7. a folder of .tar or .parquet files, here, in `data`, or in folders named by split; without a training and a
   validation split only if it has no folders of classes;
8. a folder of classes.

Where a task reads no labelled images (`TaskInfo.reads_labels`), its own formats alone count, so that a folder with
annotations of several kinds serves each task. A format that is named is the only one that is looked for.

Where there is no `val`, `valid`, `validation` or `test` is used. Data without splits is split reproducibly.

    handle = detect_format("flowers", "auto")
    handle.format, handle.train, handle.val, handle.whole      # functions that read, or None
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

from resnest.checkpoints import hub
from resnest.checkpoints.fetch import is_offline
from resnest.data.folders import (
    SPLIT_NAMES,
    VAL_NAMES,
    SplitFiles,
    choose_splits,
    has_class_folders,
    holds_files,
    is_of,
    list_files,
    only_folder,
)
from resnest.data.parquet import read_arrow, read_parquet
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
from resnest.data.samples import LabelledSamples
from resnest.data.shards import read_shards, scan_shards
from resnest.data.stores import ZipStore
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
    bases = sorted({str(folder.parent if folder.name in SPLIT_NAMES else folder) for folder in folders})
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


@dataclass(frozen=True)
class Finder:
    """Recognises a task's own format, of a folder or a file."""

    format: str
    tasks: tuple[str, ...]  # that this format has annotations for
    find: Callable[[Path, str | None], DatasetHandle | None]  # path, the task that is asked for
    suffixes: tuple[str, ...] = ()  # of a file that may be a data set of this format
    first: bool = False  # looked for before other tasks' formats
    last: bool = False  # looked for after all tasks' formats; "" is its format if it only refuses


# Formats with one file or folder a split, and those with one file or several
ONE: tuple[tuple[str, str, Callable[[Path], LabelledSamples]], ...] = (
    ("folder", "", read_folder),
    ("zip", ".zip", read_zip),
    ("npz", ".npz", read_npz),
    ("csv", ".csv", read_csv),
)
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
    return _find_in_file(path, format) if path.is_file() else _find_in_folder(path, format)


def _with_labels(finder: Finder) -> bool:
    """Whether folders of labelled images are also searched for this task."""
    return task_info(finder.tasks[0]).reads_labels


def _find_annotated(path: Path, format: str, task: str | None, own: list[Finder], info: TaskInfo) -> DatasetHandle:
    for place in filter(None, (path, only_folder(path))):
        for finder in own:
            if format in ("auto", finder.format) and (handle := finder.find(place, task)):
                return handle
    kind = f"of format {format!r}" if format != "auto" else f"with {info.annotations}"
    raise ResnestError(f"{path} holds no images {kind}: expected {info.layout}")


def _find_in_file(path: Path, format: str) -> DatasetHandle:
    kind = path.suffix.lower().lstrip(".") if format == "auto" else format
    for finder in finders():
        fits = path.suffix.lower() in finder.suffixes if format == "auto" else format == finder.format
        if finder.suffixes and fits and (handle := finder.find(path, None)):
            return handle
    if kind == "zip":
        labelled, store = scan_zip(path), ZipStore(path)
        return _by_folders(kind, str(path), labelled, lambda rows: number_classes(store, rows, path.parent))
    if kind == "npz":
        return DatasetHandle(kind, str(path), unsplit=lambda: read_npz(path))
    if kind == "csv":
        return _find_in_csv(path, str(path))
    for several in SEVERAL:
        if kind == several or (format == "auto" and is_of(several, path.name)):
            return _by_split(several, str(path), SplitFiles([], [], [path.name]), path.parent)
    raise ResnestError(f"{path} is not a data set: {EXPECTED}")


def _find_in_folder(path: Path, format: str) -> DatasetHandle:
    if format in ("auto", "arrow") and (saved := _find_saved(path)):
        return saved
    for place in filter(None, (path, only_folder(path))):
        for finder in finders():
            if format in ("auto", finder.format) and (annotated := finder.find(place, None)):
                return annotated
    for kind, suffix, read in ONE:
        if format in ("auto", kind) and (pair := _find_pair(path, suffix)):
            train, val = pair
            return DatasetHandle(kind, str(path), train=partial(read, train) if train else None, val=partial(read, val))
    if format in ("auto", "csv") and (path / LABELS_FILE).is_file():
        return _find_in_csv(path / LABELS_FILE, str(path))
    for kind in SEVERAL:
        names = list_files(path, kind) if format in ("auto", kind) else []
        files = choose_splits(names)
        if names and (format == kind or (files.train and files.val) or not has_class_folders(path)):
            return _by_split(kind, str(path), files, path)
    if format in ("auto", "folder"):
        return DatasetHandle("folder", str(path), unsplit=lambda: read_folder(path, names_in=path))
    raise ResnestError(f"{path} holds no data set of format {format!r} (looked for train and val in it)")


def _find_on_hub(reference: str, format: str) -> DatasetHandle:
    data = look_up(reference, [format] if format in SEVERAL else list(SEVERAL))
    return _by_split(data.kind, data.where, choose_splits(data.names), data.fetch)


def _by_split(kind: str, where: str, files: SplitFiles, source: Path | Callable[[str], Path]) -> DatasetHandle:
    """Files of a format with several per split; `source` is their folder, or downloads one of them."""

    def read(names: list[str]) -> Read:
        return lambda: SEVERAL[kind]([source / name if isinstance(source, Path) else source(name) for name in names])

    if files.val:
        return DatasetHandle(kind, where, train=read(files.train) if files.train else None, val=read(files.val))
    if kind == "tar" and isinstance(source, Path):  # folders inside may be named by split
        shards = scan_shards([source / name for name in files.unsplit])
        return _by_folders(kind, where, shards.labelled, shards.number)
    return DatasetHandle(kind, where, unsplit=read(files.unsplit))


def _find_saved(path: Path) -> DatasetHandle | None:
    """Output of `datasets.save_to_disk`: one data set, or several with a list of their names."""
    if (path / "state.json").is_file() and (path / "dataset_info.json").is_file():
        return DatasetHandle("arrow", str(path), unsplit=lambda: read_arrow([path]))
    try:
        names = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        files = choose_splits(PurePosixPath(name).name for name in names)
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
    return DatasetHandle("arrow", str(path), train=read(files.train) if files.train else None, val=read(files.val))


def _find_pair(folder: Path, suffix: str) -> tuple[Path | None, Path] | None:
    """Training and validation split; the former may be missing if the format is unambiguous."""

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


def _find_in_csv(path: Path, where: str) -> DatasetHandle:
    rows = read_csv_rows(path)
    if rows[0].split is None:
        return DatasetHandle("csv", where, unsplit=lambda: number_csv(path, rows))
    train = [row for row in rows if row.split == "train"]
    val = [row for row in rows if row.split in VAL_NAMES]
    if not train or not val:
        raise ResnestError(f"{path}: the column split must hold both train and val")
    return DatasetHandle("csv", where, train=lambda: number_csv(path, train), val=lambda: number_csv(path, val))


def _by_folders(
    kind: str, where: str, labelled: Labelled, read: Callable[[Labelled], LabelledSamples]
) -> DatasetHandle:
    """One archive, whose folders above the classes may be named by split."""

    def inside(names: Sequence[str]) -> Labelled:
        return [(key, label) for key, label in labelled if _folders(key, label) & set(names)]

    train = inside(["train"])
    val = next((rows for name in VAL_NAMES if (rows := inside([name]))), [])
    if train and val:
        return DatasetHandle(kind, where, train=lambda: read(train), val=lambda: read(val))
    return DatasetHandle(kind, where, unsplit=lambda: read(labelled))


def _folders(key: str, label: str | tuple[str, ...]) -> set[str]:
    """Folders above an image, without the one of its class."""
    folders = PurePosixPath(key).parts[:-1]
    return set(folders[:-1] if folders and folders[-1] == label else folders)
