"""Labelled images in tables: parquet files, and what `datasets.save_to_disk` writes. Needs pyarrow to open them.

    samples = read_parquet([Path("train-00000-of-00002.parquet"), Path("train-00001-of-00002.parquet")])
    samples = read_arrow([Path("saved")])

An image is a range of bytes of a file afterwards, read without pyarrow. Arrow files hold images as they are. Parquet
packs them in row groups that must be unpacked whole for a single image: 20 times as slow for groups of 100 as the
hub has them, 150 times for 1,000 (results/data-formats.csv). So the image column is copied once, into
$RESNEST_HOME/tables.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock

from resnest.data.readers import number_classes
from resnest.data.samples import LabelledSamples
from resnest.data.stores import RangeStore, cache_json, cached_json, file_stamp, from_columns, path_mark
from resnest.errors import ResnestError, one_line
from resnest.files import cache_folder, replacing
from resnest.progress import Progress

# --- Image and label columns of a table, by the `datasets` library's metadata, or by type and name ---

IMAGE_NAMES = ("image", "img", "images", "picture", "photo", "jpg", "jpeg", "png", "webp")
LABEL_NAMES = ("label", "labels", "cls", "class", "class_name", "category", "target", "fine_label")


@dataclass(frozen=True)
class Columns:
    """The columns of a table that are read."""

    image: str
    label: str
    names: tuple[str, ...]


def choose_columns(where: str, schema: Any) -> Columns:
    """The columns, from a pyarrow schema.

    Raises:
        ResnestError: no such column, or several and none with a usual name.
    """
    import pyarrow.types as types

    notes = _features(schema)
    kinds = {field.name: field.type for field in schema}

    def noted(kind: str) -> list[str]:
        return [name for name in kinds if notes.get(name, {}).get("_type") == kind]

    images = noted("Image") or [name for name, kind in kinds.items() if _may_be_images(kind)]
    image = _pick(where, "image", images, IMAGE_NAMES, kinds)
    usable = [
        name for name, kind in kinds.items() if name in LABEL_NAMES and (types.is_integer(kind) or _is_text(kind))
    ]
    label = _pick(where, "label", noted("ClassLabel") or usable, LABEL_NAMES, kinds)
    names = notes.get(label, {}).get("names")
    known = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return Columns(image, label, tuple(names) if known and isinstance(names, list) else ())


def _pick(where: str, what: str, names: Sequence[str], usual: Sequence[str], kinds: dict[str, Any]) -> str:
    if len(names) == 1:
        return names[0]
    best = next((name for name in usual if name in names), None)
    if best is not None:
        return best
    if what == "label" and not names and "objects" in kinds:
        raise ResnestError(
            f"{where} has objects of images and no label of each: such tables are not read. Save the images, with their"
            " objects in metadata.jsonl or as COCO json"
        )
    shown = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
    if names:
        raise ResnestError(f"{where} has {len(names)} {what} columns ({', '.join(names)}): call the one meant {what!r}")
    raise ResnestError(f"{where} has no {what} column: expected one of {', '.join(usual)}; it has {shown or 'none'}")


def _may_be_images(kind: Any) -> bool:
    """The `datasets` library's struct of bytes and path, or the bytes themselves."""
    import pyarrow.types as types

    if types.is_struct(kind):
        return any(field.name == "bytes" and _is_bytes(field.type) for field in kind)
    return _is_bytes(kind)


def _is_bytes(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _is_text(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _features(schema: Any) -> dict[str, Any]:
    """The `datasets` library's metadata of the columns; empty if it is missing or unexpected."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return (
        {name: note for name, note in features.items() if isinstance(note, dict)} if isinstance(features, dict) else {}
    )


VERSION = 1
BATCH = 64  # rows in memory at a time
INDEX_FOLDER = ".resnest-index"


@dataclass(frozen=True)
class Rows:
    """The rows of one file, column by column: position of each image in `file`, its name if it has one, its label."""

    file: str
    starts: list[int]
    sizes: list[int]
    names: list[str]
    labels: list[str]
    class_names: list[str]


def read_parquet(paths: Sequence[Path]) -> LabelledSamples:
    """Raises ResnestError: no image or label column, an empty cell, an unknown label, a truncated file, a full disk."""
    return _join(paths, [_unpacked_parquet(path) for path in paths])


def read_arrow(folders: Sequence[Path]) -> LabelledSamples:
    """Read folders of `Dataset.save_to_disk` as one data set. Raises as `read_parquet`."""
    paths = [path for folder in folders for path in _data_files(folder)]
    return _join(paths, [_indexed_arrow(path) for path in paths])


def _data_files(folder: Path) -> list[Path]:
    try:
        files = json.loads((folder / "state.json").read_text(encoding="utf-8"))["_data_files"]
        paths = [folder / PurePosixPath(file["filename"]).name for file in files]
    except (OSError, ValueError, TypeError, KeyError):
        raise ResnestError(f"{folder} is not a saved data set: its state.json names no data files") from None
    if not paths:
        raise ResnestError(f"{folder} has no rows")
    return paths


def _join(paths: Sequence[Path], tables: list[Rows]) -> LabelledSamples:
    """One data set from several files. Keys are FILE/ROW, followed by the image's own name if it has one."""
    labelled: list[tuple[str, str | tuple[str, ...]]] = []
    for path, table in zip(paths, tables, strict=True):
        if table.class_names != tables[0].class_names:
            raise ResnestError(f"{path} has other class names than {paths[0]}: they do not belong together")
        for row, (name, label) in enumerate(zip(table.names, table.labels, strict=True)):
            labelled.append((f"{path.name}/{row:06d}/{name}" if name else f"{path.name}/{row:06d}", label))
    if not labelled:
        raise ResnestError(f"{paths[0]} has no rows")
    files = [Path(table.file) for table in tables]
    ranges = [(table.starts, table.sizes) for table in tables]
    names = {str(index): name for index, name in enumerate(tables[0].class_names)}
    return number_classes(RangeStore.build(files, [key for key, _ in labelled], ranges), labelled, names)


# --- parquet: the images are copied once ---


def _unpacked_parquet(path: Path) -> Rows:
    stamp = file_stamp(path, version=VERSION, table=path.name)
    folder = cache_folder() / "tables"
    mark = hashlib.sha256(json.dumps(stamp).encode()).hexdigest()[:16]
    target = folder / f"{path_mark(path)}-{mark}.bin"
    note = target.with_suffix(".json")
    try:
        if ready := _unpacked_before(path, target, note, stamp):  # a cache that is there may be read-only
            return ready
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{target.name}.lock"):  # several processes may open the same data
            if ready := _unpacked_before(path, target, note, stamp):
                return ready
            rows = _unpack(path, target)
            for old in folder.glob(f"{path_mark(path)}-*"):  # of the file as it was before
                if old not in (target, note):
                    old.unlink()
            cache_json(target, note, {**stamp, **asdict(rows)})
            return rows
    except OSError as error:
        raise ResnestError(
            f"{path} cannot be unpacked into {folder}: {error.strerror or error}; RESNEST_HOME=FOLDER moves it"
        ) from None


def _unpacked_before(path: Path, target: Path, note: Path, stamp: dict[str, Any]) -> Rows | None:
    rows = _rows_from_json(cached_json(path, note, stamp))
    if rows is None or not target.is_file() or target.stat().st_size != sum(rows.sizes):
        return None
    return replace(rows, file=str(target))


def _unpack(path: Path, target: Path) -> Rows:
    with replacing(target) as temporary, temporary.open("wb") as file:
        rows = _copy_images(path, file)
    return Rows(str(target), *rows)


def _copy_images(path: Path, file: BinaryIO) -> tuple[list[int], list[int], list[str], list[str], list[str]]:
    """Append the image column of a parquet file to `file`; returns the columns of `Rows`."""
    pa = _pyarrow(path)
    import pyarrow.parquet as pq

    starts, sizes, names, labels = list[int](), list[int](), list[str](), list[str]()
    position = 0
    try:
        with pq.ParquetFile(path, memory_map=True, pre_buffer=False) as table:
            columns = choose_columns(str(path), table.schema_arrow)
            _check_space(path, table.metadata, columns.image, Path(file.name).parent)
            with Progress(f"unpacking {path.name} into {Path(file.name).parent}, rows:", if_slow=True) as progress:
                progress.start(table.metadata.num_rows)
                for batch in table.iter_batches(BATCH, columns=[columns.image, columns.label], use_threads=False):
                    for content, name, label in _cells(path, batch, columns, len(labels)):
                        starts.append(position)
                        sizes.append(file.write(content))
                        position += sizes[-1]
                        names.append(name)
                        labels.append(label)
                    progress.advance(len(batch))
    except pa.ArrowException as error:
        raise _unreadable(path, error) from None
    except OSError as error:
        if error.errno is None:  # pyarrow's own, of damaged pages
            raise _unreadable(path, error) from None
        raise
    return starts, sizes, names, labels, list(columns.names)


def _check_space(path: Path, metadata: Any, column: str, folder: Path) -> None:
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    chunks = (group.column(number) for group in groups for number in range(group.num_columns))
    needed = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] == column)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ResnestError(
            f"{path} needs {needed / 1e6:,.0f} MB in {folder}, where {free / 1e6:,.0f} are free: RESNEST_HOME=FOLDER"
            " moves it"
        )


# --- arrow: images are stored unchanged ---


def _indexed_arrow(path: Path) -> Rows:
    stamp = file_stamp(path, version=VERSION, table=path.name)
    beside = path.parent / INDEX_FOLDER / f"{path.name}.json"
    if (rows := _rows_from_json(cached_json(path, beside, stamp))) is None:
        rows = _locate_images(path)
        cache_json(path, beside, {**stamp, **asdict(rows)})
    return replace(rows, file=str(path))  # wherever the folder is now


def _locate_images(path: Path) -> Rows:
    """The offset of each image in a memory-mapped file."""
    pa = _pyarrow(path)
    starts, sizes, names, labels = list[int](), list[int](), list[str](), list[str]()
    try:
        with pa.memory_map(str(path)) as file:
            length = file.size()
            base = file.read_buffer(length).address
            file.seek(0)
            with pa.ipc.open_stream(file) as stream:
                columns = choose_columns(str(path), stream.schema)
                for batch in stream:
                    for content, name, label in _cells(path, batch, columns, len(labels)):
                        if not 0 <= content.address - base <= length - content.size:
                            raise ResnestError(f"{path} is compressed: save the data set anew, or as parquet")
                        starts.append(content.address - base)
                        sizes.append(content.size)
                        names.append(name)
                        labels.append(label)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from None
    return Rows(str(path), starts, sizes, names, labels, list(columns.names))


# --- both ---


def _cells(path: Path, batch: Any, columns: Columns, before: int) -> Iterator[tuple[Any, str, str]]:
    """Image bytes (a buffer), name and label of every row; `before` is the number of rows in earlier batches."""
    import pyarrow.types as types

    images, names = batch.column(columns.image), None
    if types.is_struct(images.type):
        fields = dict(zip((field.name for field in images.type), images.flatten(), strict=True))
        images, names = fields["bytes"], fields.get("path")
    label_of = _label_reader(columns)
    for row, content in enumerate(_buffers(images)):
        where = f"{path}, row {before + row}"
        name = PurePosixPath((names[row].as_py() if names is not None else None) or "").name
        if content is None:
            reason = f"names the file {name} but holds no bytes: embed the images before saving" if name else "is empty"
            raise ResnestError(f"{where}: column {columns.image} {reason}")
        yield content, name, label_of(where, batch.column(columns.label)[row].as_py())


def _buffers(column: Any) -> Iterator[Any]:
    """The bytes of every cell without a copy, None for an empty one; a scalar's `as_buffer` copies."""
    import pyarrow.types as types

    width = np.int64 if types.is_large_binary(column.type) else np.int32
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, width)[column.offset : column.offset + len(column) + 1].tolist()
    for row, valid in enumerate(column.is_valid().to_pylist()):
        yield data.slice(ends[row], ends[row + 1] - ends[row]) if valid and data is not None else None


def _label_reader(columns: Columns) -> Callable[[str, Any], str]:
    known = len(columns.names)

    def read(where: str, label: Any) -> str:
        if label is None or label == "":
            raise ResnestError(f"{where}: column {columns.label} is empty")
        if type(label) is int:
            if known and not 0 <= label < known:
                hidden = " (-1 stands for a hidden label)" if label == -1 else ""
                raise ResnestError(f"{where}: label {label} is none of the {known} classes{hidden}")
            if label < 0:
                raise ResnestError(f"{where}: label {label} is negative")
        elif type(label) is not str:
            raise ResnestError(f"{where}: label {label!r} is neither an integer nor text")
        return str(label)

    return read


def _rows_from_json(content: dict[str, Any] | None) -> Rows | None:
    same = ("starts", "sizes", "names", "labels")
    return from_columns(Rows, content, same, texts=("names", "labels", "class_names"), numbers=("starts", "sizes"))


def _unreadable(path: Path, error: Exception) -> ResnestError:
    return ResnestError(f"{path} is cut off or damaged ({one_line(error)}): copy or download it again")


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
    except ModuleNotFoundError:
        raise ResnestError(f"{path} needs pyarrow to be read: pip install pyarrow") from None
    return pyarrow
