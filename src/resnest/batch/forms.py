"""The forms of a job's results: parquet, csv and jsonl. Parts of each are joined without holding them in memory.

    form = form_of(Path("results.parquet"))(Classification, Show(top=3))
    form.add(result)                     # or a BadImage
    content = form.take()                # of a part
    form.join(parts, file)               # the whole

Parquet and csv have the columns of `Result.rows` and `error`, jsonl what `Result.to_dict` gives. Each picture has a
row at least: one without objects has its name alone, one that cannot be used its name and the error.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from resnest.errors import ResnestError
from resnest.files import WRITTEN
from resnest.runtime.decode import BadImage
from resnest.runtime.results import Result, Show

GROUP = 100_000  # rows of parquet that are read at once afterwards; parts have fewer


class Form(ABC):
    """Collects the results of one part, and joins parts."""

    def __init__(self, kind: type[Result], show: Show) -> None:
        self.show = show
        self.columns = {**kind.COLUMNS, "error": ""}

    @abstractmethod
    def add(self, result: Result | BadImage) -> None:
        """Add a picture to the part."""

    @abstractmethod
    def take(self) -> bytes:
        """The content of the part; the next one begins."""

    def join(self, parts: Iterable[Path], target: BinaryIO) -> None:
        """Write the whole."""
        for part in parts:
            with part.open("rb") as file:
                shutil.copyfileobj(file, target)


class JsonLines(Form):
    """A line a picture, as `resnest predict --json` prints."""

    def __init__(self, kind: type[Result], show: Show) -> None:
        super().__init__(kind, show)
        self.lines: list[bytes] = []

    def add(self, result: Result | BadImage) -> None:
        bad = isinstance(result, BadImage)
        content = {"image": result.name, "error": result.reason} if bad else result.to_dict(self.show)  # type: ignore[union-attr]
        self.lines.append(_bytes(json.dumps(content, ensure_ascii=False)) + b"\n")

    def take(self) -> bytes:
        content, self.lines = b"".join(self.lines), []
        return content


class Csv(Form):
    """Rows as `resnest predict --csv` prints them."""

    def __init__(self, kind: type[Result], show: Show) -> None:
        super().__init__(kind, show)
        self.text = io.StringIO(newline="")

    def add(self, result: Result | BadImage) -> None:
        rows = _bad_row(result, self.columns) if isinstance(result, BadImage) else result.cells(self.show)
        csv.writer(self.text).writerows([*row, ""] if len(row) < len(self.columns) else row for row in rows)

    def take(self) -> bytes:
        content, self.text = _bytes(self.text.getvalue()), io.StringIO(newline="")
        return content

    def join(self, parts: Iterable[Path], target: BinaryIO) -> None:
        header = io.StringIO(newline="")
        csv.writer(header).writerow(self.columns)
        target.write(header.getvalue().encode())
        super().join(parts, target)


class Parquet(Form):
    """Rows in typed columns. Needs pyarrow."""

    def __init__(self, kind: type[Result], show: Show) -> None:
        super().__init__(kind, show)
        try:
            import pyarrow as pa
        except ModuleNotFoundError:
            raise ResnestError("pyarrow is not installed: pip install '.[parquet]', or write .jsonl or .csv") from None
        kinds = {"": pa.string(), "d": pa.int64()}  # others are formats of fractions
        fields = [(name, kinds.get(format, pa.float64())) for name, format in self.columns.items()]
        self.schema = pa.schema(fields, metadata={"creator": WRITTEN})
        self.values: dict[str, list[Any]] = {name: [] for name in self.columns}

    def add(self, result: Result | BadImage) -> None:
        if isinstance(result, BadImage):
            rows: list[dict[str, Any]] = [{"image": result.name, "error": result.reason}]
        else:
            rows = result.rows(self.show) or [{"image": result.name}]
        for row in rows:
            for name, format in self.columns.items():
                self.values[name].append(_typed(row.get(name), format))

    def take(self) -> bytes:
        import pyarrow as pa
        import pyarrow.parquet as pq

        buffer = io.BytesIO()
        pq.write_table(pa.table(self.values, schema=self.schema), buffer)
        self.values = {name: [] for name in self.columns}
        return buffer.getvalue()

    def join(self, parts: Iterable[Path], target: BinaryIO) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        waiting: list[Any] = []
        with pq.ParquetWriter(target, self.schema) as writer:
            for part in parts:
                with pq.ParquetFile(part) as file:
                    waiting.append(file.read())
                if sum(map(len, waiting)) >= GROUP:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting = []
            if waiting:
                writer.write_table(pa.concat_tables(waiting))


FORMS: dict[str, type[Form]] = {".parquet": Parquet, ".jsonl": JsonLines, ".csv": Csv}


def form_of(path: Path) -> type[Form]:
    """The form of a file. Raises ResnestError for another suffix."""
    if path.suffix.lower() not in FORMS:
        raise ResnestError(f"{path}: expected a file whose name ends with {', '.join(FORMS)}")
    return FORMS[path.suffix.lower()]


def _bad_row(bad: BadImage, columns: Iterable[str]) -> list[list[str]]:
    values = {"image": bad.name, "error": bad.reason}
    return [[values.get(name, "") for name in columns]]


def _typed(value: Any, format: str) -> Any:
    """Names of files that are no text are written as in json: \\udcff."""
    if value is None:
        return None
    return _bytes(str(value)).decode() if format == "" else int(value) if format == "d" else float(value)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
