"""Stores: reading the bytes of images by their keys; and the cache of indexes of large files.

FolderStore(Path("flowers")).read("roses/1.jpg")
RangeStore.build([Path("train-000000.tar")], ["train-000000.tar/rose.jpg"], [([512], [4103])])
content = cached_json(shard, beside, stamp)      # None, or what cache_json wrote with the same stamp

An index is built once and saved beside its file, or in the cache if that is not writable: $RESNEST_HOME,
~/.cache/resnest by default.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from resnest.errors import ResnestError
from resnest.files import cache_folder, write_atomically
from resnest.runtime.decode import MAX_BYTES, BadImage, read_capped

T = TypeVar("T")


class Store(Protocol):
    """Reads the bytes of an image by its key; must survive pickling and forking into worker processes."""

    def read(self, key: str) -> bytes: ...


def read_from(store: Store, key: str) -> bytes:
    """The bytes of an image. Raises BadImage."""
    try:
        return store.read(key)
    except (OSError, KeyError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadImage(key, f"cannot be read ({reason})") from None


@dataclass(frozen=True)
class FolderStore:
    """Keys are paths below a folder."""

    root: Path

    def read(self, key: str) -> bytes:
        try:
            return read_capped(self.root / key)
        except ValueError as error:  # a zero byte in the name
            raise OSError(str(error)) from None


def path_of(store: Store, key: str) -> Path | None:
    """The file of a key, if it is one by itself."""
    return store.root / key if isinstance(store, FolderStore) else None


@dataclass
class ZipStore:
    """Keys are members of a zip file, which is read in place."""

    path: Path
    _handle: tuple[int, zipfile.ZipFile] | None = field(default=None, repr=False, compare=False)

    def read(self, key: str) -> bytes:
        if self._handle is None or self._handle[0] != os.getpid():
            self._handle = (os.getpid(), zipfile.ZipFile(self.path))  # a handle must not be shared across a fork
        with self._handle[1].open(key) as member:
            return member.read(MAX_BYTES + 1)

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_handle": None}


@dataclass(frozen=True)
class BytesStore:
    """Keys are numbers of records concatenated in one array."""

    content: NDArray[np.uint8]
    offsets: NDArray[np.int64]  # (N + 1,)

    def read(self, key: str) -> bytes:
        start, end = self.offsets[int(key)], self.offsets[int(key) + 1]
        return self.content[start:end].tobytes()


Ranges = tuple[Sequence[int], Sequence[int]]  # first bytes and lengths, in one file
MOST_OPEN = 64  # files that a RangeStore keeps open; a process may have 1,024 by default


class RangeStore:
    """Keys are byte ranges of files, such as members of tar shards.

    The table is three arrays, not a dictionary: worker processes share them with their parent without a copy.
    Reading by position has no state, so that open files may be shared across a fork and between threads.

        store = RangeStore.build([Path("train-000000.tar")], ["train-000000.tar/rose.jpg"], [([512], [4103])])
    """

    def __init__(self, files: tuple[Path, ...], marks: NDArray[np.uint64], extents: NDArray[np.int64]) -> None:
        self.files = files
        self.marks = marks  # (N,) hashes of the keys, ascending
        self.extents = extents  # (N, 3): number of the file, first byte, length
        self._open: OrderedDict[int, _OpenFile] = OrderedDict()

    @classmethod
    def build(cls, files: Sequence[Path], keys: Sequence[str], ranges: Iterable[Ranges]) -> RangeStore:
        """Build from offsets and lengths, file by file; `keys` names all ranges. Raises ResnestError for duplicates."""
        parts = [
            np.column_stack([np.full(len(starts), number, np.int64), np.array(starts, np.int64), sizes])
            for number, (starts, sizes) in enumerate(ranges)
        ]
        extents = np.concatenate(parts).astype(np.int64)
        marks = np.fromiter(map(_mark, keys), np.uint64, len(keys))
        order = np.argsort(marks, kind="stable")
        if len(twice := np.flatnonzero(np.diff(marks[order]) == 0)):
            raise ResnestError(f"two images are called {keys[order[twice[0]]]}: rename one of their files")
        return cls(tuple(files), marks[order], extents[order])

    def read(self, key: str) -> bytes:
        mark = np.uint64(_mark(key))
        row = int(np.searchsorted(self.marks, mark))
        if row == len(self.marks) or self.marks[row] != mark:
            raise KeyError(key)
        number, start, size = map(int, self.extents[row])
        content = self._file(number).read(start, min(size, MAX_BYTES + 1))
        if len(content) < min(size, MAX_BYTES + 1):
            raise OSError(f"{self.files[number]} is shorter than when it was opened")
        return content

    def _file(self, number: int) -> _OpenFile:
        file = self._open.pop(number, None) or _OpenFile(self.files[number])
        self._open[number] = file  # the last of them is the one used last
        if len(self._open) > MOST_OPEN:
            self._open.popitem(last=False)
        return file

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": OrderedDict()}


class _OpenFile:
    """An open file, closed when its last user drops it."""

    def __init__(self, path: Path) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY)

    def read(self, start: int, size: int) -> bytes:
        return os.pread(self.descriptor, size, start)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def _mark(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(errors="surrogateescape"), digest_size=8).digest(), "big")


def file_stamp(path: Path, **extra: Any) -> dict[str, Any]:
    """What tells whether a file has changed, and whatever else is said. Raises ResnestError where there is none."""
    try:
        now = path.stat()
    except OSError as error:
        raise ResnestError(f"{path} cannot be read: {error.strerror}") from None
    return {**extra, "bytes": now.st_size, "mtime_ns": now.st_mtime_ns}


def cached_json(source: Path, beside: Path, stamp: dict[str, Any]) -> dict[str, Any] | None:
    """The cached content for `source` with this stamp."""
    for path in (beside, _in_cache(source, beside.name)):
        try:
            content = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(content, dict) and all(content.get(key) == value for key, value in stamp.items()):
            return content
    return None


def cache_json(source: Path, beside: Path, content: dict[str, Any]) -> None:
    """Write the cache where possible; it can be rebuilt. Not beside a linked file, whose folder is not ours."""
    for path in (_in_cache(source, beside.name),) if source.is_symlink() else (beside, _in_cache(source, beside.name)):
        try:
            write_atomically(path, json.dumps(content).encode())
            return
        except OSError:
            continue


def from_columns(
    kind: type[T],
    content: dict[str, Any] | None,
    same_length: Sequence[str],
    *,
    texts: Sequence[str],
    numbers: Sequence[str],
) -> T | None:
    """A dataclass of columns from cached JSON; None if the content is anything else."""
    if content is None:
        return None
    try:
        columns = {field.name: content[field.name] for field in fields(kind)}  # type: ignore[arg-type]
        good = (
            all(isinstance(columns[name], list) for name in (*texts, *numbers))
            and len({len(columns[name]) for name in same_length}) == 1
            and all(type(text) is str for name in texts for text in columns[name])
            and all(type(number) is int and number >= 0 for name in numbers for number in columns[name])
        )
    except KeyError:
        return None
    return kind(**columns) if good else None


def path_mark(path: Path) -> str:
    """A short hash of a path on this machine."""
    return hashlib.sha256(str(path.absolute()).encode(errors="surrogateescape")).hexdigest()[:16]


def _in_cache(source: Path, name: str) -> Path:
    return cache_folder() / "index" / path_mark(source.parent) / name
