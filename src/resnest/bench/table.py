"""What was measured: cases with every repetition, written as CSV under the environment, and read back.

    write_table(Path("speed.csv"), table)
    table = read_table(Path("speed.csv"))
    base_of(table.cases, case)              # what its ratio is taken to

One line a repetition: a repetition is a round's turn, seconds are of one call, the mean of `calls` in that turn.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from resnest.bench.environment import head
from resnest.bench.spread import Interval, paired, quartiles, sign_interval
from resnest.errors import ResnestError
from resnest.runtime.files import replacing

KEYS = ("model", "engine", "layout", "precision", "batch", "size")
COLUMNS = (*KEYS, "round", "calls", "seconds", "peak_mib", "joules")
Key = tuple[str, str, str, str, int, int]


@dataclass
class Case:
    """A contender and its times; the five words and numbers in front name it."""

    model: str
    engine: str
    layout: str
    precision: str
    batch: int
    size: int
    calls: int = 1  # in a turn
    seconds: list[float] = field(default_factory=list)  # of one call, a round each
    peak_mib: float | None = None
    joules: list[float] = field(default_factory=list)  # of one call; empty: not reported by the machine
    is_peer: bool = False

    @property
    def key(self) -> Key:
        return (self.model, self.engine, self.layout, self.precision, self.batch, self.size)

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        return quartiles(self.seconds)

    @property
    def interval(self) -> Interval:
        """Of the median."""
        return sign_interval(self.seconds)

    def __str__(self) -> str:
        kind = "" if self.precision == "float32" else f" {self.precision}"
        return f"{self.model} {self.engine} {self.layout}{kind} batch {self.batch}, {self.size} px"


@dataclass
class Table:
    """All cases of a measurement, and where it was made."""

    environment: list[str]  # `key: value` lines
    cases: list[Case] = field(default_factory=list)

    def find(self, key: Key) -> Case | None:
        return next((case for case in self.cases if case.key == key), None)


def base_of(cases: Sequence[Case], case: Case) -> Case:
    """What a ratio is taken to: of the first peer (or the first network at all) its first engine in its best layout.

    Of the case's own batch, and size if it was measured there.
    """
    same = [other for other in cases if other.batch == case.batch]
    first = next((other for other in same if other.is_peer), same[0])
    own = [other for other in same if (other.model, other.engine) == (first.model, first.engine)]
    fitting = [other for other in own if other.size == case.size] or own
    return min(fitting, key=lambda other: other.median)


def ratio_of(cases: Sequence[Case], case: Case) -> tuple[float, Interval]:
    """How many times faster than its base, round by round."""
    return paired(base_of(cases, case).seconds, case.seconds)


def write_table(path: Path, table: Table) -> None:
    """Raises ResnestError if the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            file.write(head(table.environment))
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(COLUMNS)
            for case in table.cases:
                peak = "" if case.peak_mib is None else f"{case.peak_mib:.0f}"
                for number, seconds in enumerate(case.seconds):
                    joules = f"{case.joules[number]:.4f}" if case.joules else ""
                    rows.writerow((*case.key, number, case.calls, f"{seconds:.7f}", peak, joules))
    except OSError as error:
        raise ResnestError(f"{path} cannot be written: {error.strerror or error}") from None


def read_table(path: Path) -> Table:
    """Raises ResnestError for a file that is not there, or that `resnest bench` did not write."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ResnestError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    table = Table([line.removeprefix("#").strip() for line in lines if line.startswith("#")])
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    if tuple(rows.fieldnames or ()) != COLUMNS:
        raise ResnestError(f"{path} is not a table of `resnest bench`: its columns are not {', '.join(COLUMNS)}")
    found: dict[Key, Case] = {}
    for number, row in enumerate(rows, start=1):
        try:
            _add(found, row)
        except (ValueError, TypeError):
            raise ResnestError(f"{path}: row {number} of the table cannot be understood") from None
    if not found:
        raise ResnestError(f"{path} holds no measurements")
    table.cases = list(found.values())
    return table


def _add(found: dict[Key, Case], row: dict[str, str]) -> None:
    model, engine, layout, precision = (row[name] for name in KEYS[:4])
    key = (model, engine, layout, precision, int(row["batch"]), int(row["size"]))
    peer = model.startswith(("timm:", "torchvision:"))
    case = found.setdefault(key, Case(*key, calls=int(row["calls"]), is_peer=peer))
    seconds = float(row["seconds"])
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ValueError(seconds)
    case.seconds.append(seconds)
    case.peak_mib = float(row["peak_mib"]) if row["peak_mib"] else None
    if row["joules"]:
        case.joules.append(float(row["joules"]))
