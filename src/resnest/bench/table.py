"""The table of a benchmark: cases with all repetitions, as CSV with the environment, as text and as JSON.

    write_table(Path("speed.csv"), table)
    table = read_table(Path("speed.csv"))
    base_of(table.cases, case)              # the baseline of its ratio
    print("\\n".join(lines(table)))

One line per repetition, which is a turn in a round; seconds are per call, the mean of the `calls` of that turn.

No distribution of the times is assumed, as they are skewed with rare outliers. Intervals are those of the sign test
(Conover, Practical Nonparametric Statistics, section 3.2): between two values in order of size, symmetrical from the
ends, the median lies with a probability that the binomial distribution gives.
"""

from __future__ import annotations

import csv
import datetime
import importlib.metadata
import io
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Literal, NamedTuple

import resnest
from resnest.errors import ResnestError
from resnest.files import check_replaceable, write_atomically, write_errors
from resnest.runtime.hardware import instruction_sets, processor, usable_cores

# --- The environment of a measurement: machine, versions, load, command; the head of every table ---
# Every line is `key: value`, so that a later comparison can list those that changed.

PACKAGES = ("torch", "torchvision", "timm", "onnx", "onnxruntime", "openvino", "numpy", "pillow")
SHARED = ("cpu", "instruction sets", "cores", "gpu", "threads", "versions")  # of two runs that may be compared


def environment(
    *, threads: int | None = None, device: str = "cpu", packages: Sequence[str] = PACKAGES, notes: Iterable[str] = ()
) -> list[str]:
    """Lines for the head of a CSV file.

    Args:
        threads: that the engines were given; None: not known here.
        device: "cuda" adds the GPU's name.
        packages: whose versions are named, where they are installed.
        notes: what the file holds, in `key: value` lines of its own.
    """
    sets = " ".join(instruction_sets()) or "not known"
    lines = [f"cpu: {processor()}", f"instruction sets: {sets}", f"cores: {usable_cores()}"]
    if device == "cuda":
        import torch

        lines.append(f"gpu: {torch.cuda.get_device_name()}")
    if threads is not None:
        lines.append(f"threads: {threads}")
    lines.append(f"versions: {', '.join(versions(packages))}")
    load = (
        f", load average {' '.join(f'{value:.2f}' for value in os.getloadavg())}" if hasattr(os, "getloadavg") else ""
    )
    lines.append(f"date: {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC{load}")
    lines += [f"commit: {known}"] if (known := commit()) else []
    return [*lines, f"command: {command()}", *notes]


def head(lines: Iterable[str]) -> str:
    """The lines at the head of a CSV file."""
    return "".join(f"# {line}\n" for line in lines)


def facts(lines: Iterable[str]) -> dict[str, str]:
    """The lines by their keys."""
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def of_run(account: Mapping[str, Any]) -> list[str]:
    """Environment lines of a training run, from its run.json: it ran elsewhere and earlier."""
    packages = ", ".join(f"{name} {version}" for name, version in account["versions"].items())
    return [f"versions: {packages}", f"threads: {account['threads']}", f"date: {account['started']}"]


def versions(packages: Iterable[str]) -> list[str]:
    lines = [f"resnest {resnest.__version__}", f"python {platform.python_version()}"]
    for name in packages:
        version = getattr(sys.modules.get(name), "__version__", "")  # torch's own word names its build, 2.15.0+cu132
        try:
            lines.append(f"{name} {version or importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return lines


def commit() -> str:
    """Commit of the checkout that this code is in; empty for an installed package."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return ""
    try:
        git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True)
    except OSError:
        return ""
    return git.stdout.strip()


def command() -> str:
    """The command line, without the program's folder."""
    program = Path(sys.argv[0])
    name = f"python benchmarks/{program.name}" if program.parent.name == "benchmarks" else program.name
    return " ".join([name, *map(shlex.quote, sys.argv[1:])])


# --- Performance regressions against an older table, beyond noise ---
# A case is slower where three things hold: the 95 % intervals of the two medians do not touch; it is 3 % or more (two
# runs of the same program differ by that much through their memory layout); and, if both tables have a base that is not
# the case itself, the intervals of the ratios to it do not touch either, so that a slower machine is not taken for
# slower code.

LEAST = 0.03  # what two runs of one program may differ by
Verdict = Literal["slower", "faster", "same"]


@dataclass(frozen=True)
class Change:
    """A case that is in both tables."""

    case: Case
    before: Case
    verdict: Verdict
    against: str  # "its own time", or the base too

    @property
    def factor(self) -> float:
        """New time / old time."""
        return self.case.median / self.before.median

    def __str__(self) -> str:
        moved = f"{1e3 * self.before.median:.2f} -> {1e3 * self.case.median:.2f} ms ({self.factor - 1:+.1%})"
        return f"{self.verdict:<7} {self.case}: {moved}, by {self.against}"


def compare(old: Table, new: Table) -> list[Change]:
    """All cases of both tables, in the order of the new one."""
    pairs = [(old.find(case.key), case) for case in new.cases]
    return [_judge(old, new, before, case) for before, case in pairs if before is not None]


def missing(old: Table, new: Table) -> list[Case]:
    """Cases of the old table that were not measured now."""
    return [case for case in old.cases if new.find(case.key) is None]


def differences(old: Table, new: Table) -> Iterator[str]:
    """Differences of the two environments, one line each: they may explain a difference in speed."""
    before, now = facts(old.environment), facts(new.environment)
    for key in SHARED:
        if before.get(key) != now.get(key):
            yield f"{key}: {before.get(key, '-')} -> {now.get(key, '-')}"


def _judge(old: Table, new: Table, before: Case, case: Case) -> Change:
    verdict = _verdict(case.median / before.median, before.interval.apart(case.interval))
    bases = base_of(old.cases, before), base_of(new.cases, case)
    if bases[0].key != bases[1].key or case.key == bases[1].key:
        return Change(case, before, verdict, "its own time")
    was, now = ratio_of(old.cases, before), ratio_of(new.cases, case)
    relative = _verdict(was[0] / now[0], was[1].apart(now[1]))
    both = verdict if relative == verdict else "same"
    return Change(
        case, before, both, f"its own time and the ratio to {bases[1].model} ({was[0]:.2f}x -> {now[0]:.2f}x)"
    )


def _verdict(factor: float, apart: bool) -> Verdict:
    if not apart or abs(factor - 1) < LEAST:
        return "same"
    return "slower" if factor > 1 else "faster"


KEYS = ("model", "engine", "layout", "precision", "batch", "size")
COLUMNS = (*KEYS, "round", "calls", "seconds", "peak_mib")
OLD_COLUMNS = (*COLUMNS, "joules")  # older tables may have the energy of a call
Key = tuple[str, str, str, str, int, int]
HEAD = f"{'ms a call':>10}  {'quartiles':>17} {'images/s':>9} {'ratio':>7}  {'95 % interval':<15} {'peak MiB':>8}"


class Interval(NamedTuple):
    """Confidence interval of the median, with the probability `coverage`."""

    low: float
    high: float
    coverage: float

    def apart(self, other: Interval) -> bool:
        return self.low > other.high or self.high < other.low


def sign_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """The narrowest interval with at least that coverage; of fewer than six values the full range, with less.

    >>> sign_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
    Interval(low=2.0, high=8.0, coverage=0.9609375)
    """
    ordered, count = sorted(values), len(values)
    k, outside = 1, 2 / 2**count  # the ends are the k-th values; the median lies beyond them with this probability
    while k < count // 2:
        more = outside + 2 * math.comb(count, k) / 2**count
        if 1 - more < level:
            break
        k, outside = k + 1, more
    return Interval(ordered[k - 1], ordered[count - k], 1 - outside)


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Lower and upper quartile; of a single value, both are it.

    >>> quartiles([1.0, 2.0, 3.0, 4.0, 5.0])
    (2.0, 4.0)
    """
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, high


def paired(base: Sequence[float], own: Sequence[float]) -> tuple[float, Interval]:
    """Speed-up over the baseline: median over rounds of base / own, and its interval.

    >>> paired([2.0, 4.0, 6.0], [1.0, 2.0, 2.0])[0]
    2.0
    """
    ratios = [theirs / ours for theirs, ours in zip(base, own, strict=True)]
    return median(ratios), sign_interval(ratios)


@dataclass
class Case:
    """A contender and its times; the first five fields identify it."""

    model: str
    engine: str
    layout: str
    precision: str
    batch: int
    size: int
    calls: int = 1  # in a turn
    seconds: list[float] = field(default_factory=list)  # of one call, a round each
    peak_mib: float | None = None
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
        """Confidence interval of the median."""
        return sign_interval(self.seconds)

    def __str__(self) -> str:
        kind = "" if self.precision == "float32" else f" {self.precision}"
        return f"{self.model} {self.engine} {self.layout}{kind} batch {self.batch}, {self.size} px"


@dataclass
class Table:
    """All cases of a measurement, and its environment."""

    environment: list[str]  # `key: value` lines
    cases: list[Case] = field(default_factory=list)

    def find(self, key: Key) -> Case | None:
        return next((case for case in self.cases if case.key == key), None)


def base_of(cases: Sequence[Case], case: Case) -> Case:
    """The baseline of a ratio: the first peer (or the first network), in its first engine and fastest layout.

    Of the case's own batch, and size if it was measured there.
    """
    same = [other for other in cases if other.batch == case.batch]
    first = next((other for other in same if other.is_peer), same[0])
    own = [other for other in same if (other.model, other.engine) == (first.model, first.engine)]
    fitting = [other for other in own if other.size == case.size] or own
    return min(fitting, key=lambda other: other.median)


def ratio_of(cases: Sequence[Case], case: Case) -> tuple[float, Interval]:
    """Speed-up over the baseline, paired by round."""
    return paired(base_of(cases, case).seconds, case.seconds)


def write_table(path: Path, table: Table) -> None:
    """Raises ResnestError if the file cannot be written, or is somebody else's."""
    check_replaceable(path, is_table)
    text = io.StringIO(head(table.environment), newline="")
    text.seek(0, io.SEEK_END)
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for case in table.cases:
        peak = "" if case.peak_mib is None else f"{case.peak_mib:.0f}"
        for number, seconds in enumerate(case.seconds):
            rows.writerow((*case.key, number, case.calls, f"{seconds:.7f}", peak))
    with write_errors(path):
        write_atomically(path, text.getvalue().encode())


def is_table(path: Path) -> bool:
    """Whether there is no file, an empty one, or a table, by its columns."""
    try:
        if not os.path.lexists(path) or path.stat().st_size == 0:
            return True
        with path.open(encoding="utf-8") as file:
            columns = next((line for line in file if not line.startswith("#")), "")
    except (OSError, UnicodeDecodeError):
        return False
    return tuple(columns.strip().split(",")) in (COLUMNS, OLD_COLUMNS)


def read_table(path: Path) -> Table:
    """Raises ResnestError for a missing file, or one that `resnest bench` did not write."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ResnestError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    table = Table([line.removeprefix("#").strip() for line in lines if line.startswith("#")])
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    if tuple(rows.fieldnames or ()) not in (COLUMNS, OLD_COLUMNS):
        raise ResnestError(f"{path} is not a table of `resnest bench`: its columns are not {', '.join(COLUMNS)}")
    cases: dict[Key, Case] = {}
    for number, row in enumerate(rows, start=1):
        try:
            _add(cases, row)
        except (ValueError, TypeError):
            raise ResnestError(f"{path}: row {number} of the table cannot be understood") from None
    if not cases:
        raise ResnestError(f"{path} holds no measurements")
    table.cases = list(cases.values())
    return table


def _add(cases: dict[Key, Case], row: dict[str, str]) -> None:
    model, engine, layout, precision = (row[name] for name in KEYS[:4])
    key = (model, engine, layout, precision, int(row["batch"]), int(row["size"]))
    peer = model.startswith(("timm:", "torchvision:"))
    case = cases.setdefault(key, Case(*key, calls=int(row["calls"]), is_peer=peer))
    seconds = float(row["seconds"])
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ValueError(seconds)
    case.seconds.append(seconds)
    case.peak_mib = float(row["peak_mib"]) if row["peak_mib"] else None


def lines(table: Table) -> Iterator[str]:
    """One block per batch, fastest first."""
    width = max(len(_name(case)) for case in table.cases)
    for batch in dict.fromkeys(case.batch for case in table.cases):
        cases = sorted((case for case in table.cases if case.batch == batch), key=lambda case: case.median)
        yield f"{f'batch {batch}':<{width}} {HEAD}"
        for case in cases:
            yield f"{_name(case):<{width}} {_row(table, case)}"
        yield ""
    rounds = len(table.cases[0].seconds)
    yield f"Medians over {rounds} rounds. ratio: how many times faster than the line with 1.00x, round by round;"
    coverage = table.cases[0].interval.coverage
    yield f"its interval holds the median with {coverage:.0%}." + (
        "" if rounds >= 6 else " Six rounds or more give 95 %."
    )


def to_dict(table: Table) -> dict[str, Any]:
    """Environment and cases; seconds, not milliseconds."""
    return {"environment": table.environment, "cases": [_case(table, case) for case in table.cases]}


def _name(case: Case) -> str:
    kind = "" if case.precision == "float32" else f" {case.precision}"
    return f"{case.model} {case.size} px, {case.engine}{kind} {case.layout}"


def _row(table: Table, case: Case) -> str:
    low, high = (1e3 * value for value in case.quartiles)
    ratio, interval = ratio_of(table.cases, case)
    sure = "-" if base_of(table.cases, case) is case else f"{interval.low:.2f} to {interval.high:.2f}"
    peak = "-" if case.peak_mib is None else f"{case.peak_mib:.0f}"
    return (
        f"{1e3 * case.median:>10.2f}  {f'{low:.2f} to {high:.2f}':>17} {case.batch / case.median:>9.1f} {ratio:>6.2f}x"
        f"  {sure:<15} {peak:>8}"
    )


def _case(table: Table, case: Case) -> dict[str, Any]:
    ratio, interval = ratio_of(table.cases, case)
    base = base_of(table.cases, case)
    names = ("model", "engine", "layout", "precision", "batch", "size")
    return {
        **dict(zip(names, case.key, strict=True)),
        "median_seconds": case.median,
        "quartiles": list(case.quartiles),
        "ratio": ratio,
        "ratio_interval": [interval.low, interval.high],
        "coverage": interval.coverage,
        "base": dict(zip(names, base.key, strict=True)),
        "peak_mib": case.peak_mib,
        "seconds": case.seconds,
    }
