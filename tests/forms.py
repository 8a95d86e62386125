"""Writers of data in the forms that need one: tar shards, parquet, what `datasets.save_to_disk` leaves."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Labelled = list[tuple[str, str, bytes]]  # name without suffix, class, JPEG


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def webdataset(rows: Labelled, classes: Sequence[str], json_of: str = "") -> list[tuple[str, bytes]]:
    """`KEY.jpg` with `KEY.cls`, or with the class's name in `KEY.json`."""
    members = []
    for name, label, content in rows:
        members.append((f"{name}.jpg", content))
        if json_of:
            members.append((f"{name}.json", json.dumps({json_of: label, "width": 40}).encode()))
        else:
            members.append((f"{name}.cls", f"{classes.index(label)}\n".encode()))
    return members


def class_folders(rows: Labelled, above: str = "") -> list[tuple[str, bytes]]:
    return [(f"{above}{label}/{name}.jpg", content) for name, label, content in rows]


def table_of(rows: Labelled, classes: Sequence[str] = ()) -> Any:
    """A pyarrow table as `datasets` makes it; without classes, plain bytes and text."""
    import pyarrow as pa

    contents = [content for *_, content in rows]
    if not classes:
        return pa.table({"jpg": pa.array(contents, pa.binary()), "label": [label for _, label, _ in rows]})
    images = pa.array([{"bytes": content, "path": f"{name}.jpg"} for name, _, content in rows])
    notes = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(classes)}}
    metadata = {"huggingface": json.dumps({"info": {"features": notes}})}
    schema = pa.schema([("image", images.type), ("label", pa.int64())], metadata=metadata)
    return pa.table([images, pa.array([classes.index(label) for _, label, _ in rows])], schema=schema)


def write_parquet(path: Path, rows: Labelled, classes: Sequence[str] = (), group: int = 3) -> Path:
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table_of(rows, classes), path, row_group_size=group)
    return path


def write_saved(folder: Path, parts: dict[str, Labelled], classes: Sequence[str]) -> Path:
    """As `DatasetDict.save_to_disk` does (datasets 5.2): Arrow streams, and JSON files that name them."""
    import pyarrow as pa

    for part, rows in parts.items():
        (folder / part).mkdir(parents=True)
        names = [f"data-{number:05d}-of-00002.arrow" for number in range(2)]
        for name, some in zip(names, (rows[:5], rows[5:]), strict=True):
            table = table_of(some, classes)
            with pa.OSFile(str(folder / part / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table, max_chunksize=4)
        (folder / part / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
        (folder / part / "dataset_info.json").write_text("{}")
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(parts)}))
    return folder
