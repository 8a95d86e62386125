"""Peak memory and time of cases that each run in a process of their own: what scripts in benchmarks/ share.

parser = arguments(CASES, default=["prediction"], out=Path("results/memory.csv"), title="...")
options = parser.parse_args()
if options.case:                                       # in its process
    print(json.dumps({"what": options.case, **measured(work)}))
else:
    each_in_its_process(Path(__file__), options, lines="# cpu: ...")
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

Row = dict[str, object]


def arguments(cases: Iterable[str], *, default: list[str], out: Path, title: str) -> argparse.ArgumentParser:
    """What such a script takes."""
    names = list(cases)
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", nargs="+", choices=names, default=default)
    parser.add_argument("--case", choices=names, help=argparse.SUPPRESS)  # in a process of its own
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--smoke", action="store_true", default=os.environ.get("SMOKE") == "1")
    return parser


def measured(work: Callable[[], None]) -> Row:
    """Do it once: seconds, and MiB that the process had at most before and during it."""
    before, wall, cpu = _peak(), time.perf_counter(), time.process_time()
    work()
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "seconds": f"{seconds:.1f}",
        "cpu_seconds": f"{cpu_seconds:.1f}",
        "before_mib": round(before),
        "peak_mib": round(_peak()),
    }


def each_in_its_process(script: Path, options: argparse.Namespace, lines: str, settings: Sequence[str] = ()) -> None:
    """Run the chosen cases, print a table, and write it, below `lines`, as it grows; smoke into a temporary folder.

    Args:
        settings: more of the script's own options for each case's process.
    """
    if options.smoke:
        options.out = Path(tempfile.mkdtemp(prefix="resnest-memory-")) / options.out.name
    rows: list[Row] = []
    unfinished = []
    for case in options.cases:
        command = [sys.executable, str(script), "--case", case, "--threads", str(options.threads), *settings]
        done = subprocess.run(command + ["--smoke"] * options.smoke, stdout=subprocess.PIPE, text=True)
        if done.returncode:  # what was measured stays, should memory not do for this one
            unfinished.append(f"{case} (ended with {done.returncode})")
            print(f"not finished: {unfinished[-1]}", flush=True)
            continue
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(_summary(rows[-1]), flush=True)
        with options.out.open("w", newline="") as file:
            file.write(lines)
            table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
    print(options.out)
    if unfinished:
        sys.exit(f"not finished: {', '.join(unfinished)}")


def _peak() -> float:
    """MiB; Linux counts in KiB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _summary(row: Row) -> str:
    return f"| {row['what']} | {float(str(row['peak_mib'])) / 1024:.1f} GiB | {float(str(row['seconds'])):.0f} s |"
