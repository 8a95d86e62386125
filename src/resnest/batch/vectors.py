"""Files of features: parquet, npy and csv, written row by row, with the names of the pictures.

    with open_vectors(Path("x.parquet"), about={"model": "runs/a"}) as add:
        add("rose.jpg", row)             # (D,) float32

- .parquet: columns `image` and `features`, a list of D float32; `about` is in the schema's metadata.
- .csv: columns `image`, `f0` to `f{D-1}`.
- .npy: (N, D) float32, and beside it NAME.json with `about` and `images`, the names in the order of the rows.
"""

from __future__ import annotations

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.errors import ResnestError, parameter
from resnest.files import WRITTEN, replacing, write_atomically, write_errors

GROUP = 4096  # rows of parquet that are written at once
Row = NDArray[np.float32]


class Vectors(ABC):
    """Writes rows to a file."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path, self.about = path, dict(about)

    @abstractmethod
    def add(self, name: str, row: Row) -> None:
        """Add a picture's row, (D,)."""

    @abstractmethod
    def close(self, target: Path) -> None:
        """Finish the file, which will be `target`."""

    @abstractmethod
    def release(self) -> None:
        """Close what is open, also of a file that is given up."""


class Parquet(Vectors):
    """Needs pyarrow."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        super().__init__(path, about)
        self.names: list[str] = []
        self.rows: list[Row] = []
        self.writer: Any = None

    def add(self, name: str, row: Row) -> None:
        self.names.append(name)
        self.rows.append(row)
        if len(self.rows) == GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        width = len(self.rows[0])
        kinds = [("image", pa.string()), ("features", pa.list_(pa.float32(), width))]
        schema = pa.schema(kinds, metadata={"creator": WRITTEN, "resnest": json.dumps(self.about)})
        flat = pa.array(np.concatenate(self.rows), pa.float32())
        columns = [pa.array(self.names, pa.string()), pa.FixedSizeListArray.from_arrays(flat, width)]
        self.writer = self.writer or pq.ParquetWriter(self.path, schema)
        self.writer.write_table(pa.table(columns, schema=schema))
        self.names, self.rows = [], []

    def close(self, target: Path) -> None:
        if self.rows:
            self._flush()
        self.release()

    def release(self) -> None:
        if self.writer:
            self.writer.close()


class Csv(Vectors):
    """Nine digits, which give the float32 back."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        super().__init__(path, about)
        self.file = path.open("w", newline="", encoding="utf-8")
        self.writer = csv.writer(self.file)
        self.begun = False

    def add(self, name: str, row: Row) -> None:
        if not self.begun:
            self.writer.writerow(["image", *(f"f{number}" for number in range(len(row)))])
            self.begun = True
        self.writer.writerow([name, *(f"{value:.9g}" for value in row.tolist())])

    def close(self, target: Path) -> None:
        self.release()

    def release(self) -> None:
        self.file.close()


class Npy(Vectors):
    """Rows are written after a header that is written again once their number is known."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        super().__init__(path, about)
        self.file = path.open("wb")
        self.names: list[str] = []
        self.width, self.start = 0, 0

    def add(self, name: str, row: Row) -> None:
        if not self.names:
            self.width = len(row)
            self._head(10**12)  # as long as that of any number of rows
            self.start = self.file.tell()
        self.names.append(name)
        self.file.write(np.ascontiguousarray(row, "<f4").tobytes())

    def _head(self, count: int) -> None:
        """(count, D); numpy pads the header to a multiple of 64 bytes, with room for a growing first axis."""
        self.file.seek(0)
        np.lib.format.write_array_header_1_0(
            self.file, {"descr": "<f4", "fortran_order": False, "shape": (count, self.width)}
        )

    def close(self, target: Path) -> None:
        self._head(len(self.names))
        assert self.file.tell() == self.start
        self.release()
        content = {"by": WRITTEN, **self.about, "images": self.names}
        write_atomically(companion(target), (json.dumps(content, indent=1) + "\n").encode())

    def release(self) -> None:
        self.file.close()


def companion(path: Path) -> Path:
    """The file of names beside an .npy."""
    return path.with_suffix(".json")


KINDS: dict[str, type[Vectors]] = {".parquet": Parquet, ".npy": Npy, ".csv": Csv}


def check_vectors(path: Path, *, overwrite: bool = False) -> None:
    """Raises ResnestError for a file that cannot be written: another suffix, no folder, there already."""
    option = parameter("out", path)
    if path.suffix.lower() not in KINDS:
        raise ResnestError(f"{option}: expected a file whose name ends with {', '.join(KINDS)}")
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ModuleNotFoundError:
            raise ResnestError("pyarrow is not installed: pip install '.[parquet]', or write .npy or .csv") from None
    if path.is_dir() or not path.parent.is_dir():
        raise ResnestError(f"{option}: {'this is a folder' if path.is_dir() else f'there is no folder {path.parent}'}")
    files = [path, companion(path)] if path.suffix.lower() == ".npy" else [path]
    if not overwrite and (there := next((file for file in files if file.exists()), None)):
        raise ResnestError(f"{option}: {there} exists: name another file, or add {parameter('overwrite', True)}")


@contextmanager
def open_vectors(path: Path, about: Mapping[str, Any]) -> Iterator[Callable[[str, Row], None]]:
    """Gives what adds a row; the file is in its place at the end, if any row was added, and after an error never."""
    count = 0

    def add(name: str, row: Row) -> None:
        nonlocal count
        count += 1
        vectors.add(name.encode("utf-8", "backslashreplace").decode(), row)

    with write_errors(path), replacing(path) as temporary:
        vectors = KINDS[path.suffix.lower()](temporary, about)
        try:
            yield add
            if not count:
                raise ResnestError(f"no picture could be used: {path} is not written")
            vectors.close(path)
        finally:
            vectors.release()
