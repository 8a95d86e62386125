"""Batch jobs: memory over very many tiny pictures, and throughput on photographs against the engine alone.

    python benchmarks/batch.py --photos DIR              # writes results/batch.csv, prints a table
    python benchmarks/batch.py --tiny 200000             # memory alone, which other work on the machine does not change

`tiny` is `resnest predict tiny.onnx FOLDER --out results.parquet` as a process of its own, over hard links to JPEGs of
32 pixels, with a small network; the figure is its largest resident memory. `engine` runs as many batches of ResNeSt-50
as the photographs fill, all of one batch in memory; `job` is a batch job over the same photographs, from listing to the
finished file. They take turns in one process, as in benchmarks/predict.py.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

import resnest
from resnest.batch.forms import form_of
from resnest.batch.identity import identity_of
from resnest.batch.job import open_job
from resnest.batch.running import Ends, run
from resnest.bench.networks import export
from resnest.bench.table import environment, head
from resnest.classification.result import Classification
from resnest.exporters.exporting import export as export_model
from resnest.runtime.decode import SUFFIXES
from resnest.runtime.hardware import usable_cores
from resnest.runtime.preprocess import Preprocess
from resnest.runtime.results import Show

Row = tuple[str, int, int, float, float, float]
HEADER = ("what", "pictures", "round", "seconds", "cpu_seconds", "peak_mib")
FILES = 64  # under hard links, of which a file may have some 65,000
SPEC = resnest.Spec(depths=(1, 1, 1, 1), planes=(8, 16, 32, 64), stem_width=4)


def tiny(folder: Path, count: int) -> Row:
    """The memory of a job over `count` files."""
    net = resnest.create_model(SPEC, num_classes=10).eval()
    classes = [f"class {number}" for number in range(10)]
    saved = resnest.Model.of(net, classes, Preprocess(size=32)).save_pretrained(folder / "tiny")
    model = export_model(saved, out=folder / "tiny.onnx", format="onnx").path
    files = folder / "files"
    files.mkdir()
    for number in range(FILES):
        Image.new("RGB", (32, 32), (number * 3, 99, 255 - number)).save(files / f"{number}.jpg")
    for number in range(count):
        below = folder / "pictures" / f"{number // 1000:05}"
        below.mkdir(parents=True, exist_ok=True)
        os.link(files / f"{number % FILES}.jpg", below / f"{number}.jpg")
    command = ["predict", str(model), str(folder / "pictures"), "--out", str(folder / "results.parquet")]
    started, peak = time.perf_counter(), 0.0
    process = subprocess.Popen([sys.executable, "-m", "resnest", *command])
    while process.poll() is None:  # wait4's figure is at least that of this process, from which it was forked
        peak = max(peak, _peak(process.pid))
        time.sleep(0.05)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert process.returncode == 0
    return "tiny", count, 0, time.perf_counter() - started, used.ru_utime + used.ru_stime, peak


def _peak(process: int) -> float:
    """Largest resident memory so far, MiB."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    return int(found.group(1)) / 1024 if found else 0.0


def timed(work: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def throughput(folder: Path, photos: list[Path], batch: int, rounds: int) -> list[Row]:
    """Engine and job by turns."""
    model = folder / "resnest50.onnx"
    export("resnest50", "ours", model, 224)
    predictor = resnest.Predictor(model, batch_size=batch)
    images = np.random.default_rng(0).normal(size=(batch, 3, 224, 224)).astype(np.float32)
    sizes = np.full((batch, 2), 224)
    full, rest = divmod(len(photos), batch)

    def engine() -> None:
        for count in [batch] * full + [rest] * bool(rest):
            predictor.engine(images[:count], sizes[:count])

    def job() -> None:
        out = folder / f"results-{time.monotonic_ns()}.parquet"
        form = form_of(out)(Classification, Show())
        with open_job(out, map(str, photos), identity_of(predictor, {}), form) as opened:
            run(opened, predictor, 0, opened.pictures.count, ends=Ends())
            assert not opened.finish().unusable

    turns = [("engine", engine), ("job", job)]
    for _, work in turns:  # warm-up
        work()
    return [
        (what, len(photos), index, *timed(work), 0.0)
        for index in range(rounds)
        for what, work in turns[index % 2 :] + turns[: index % 2]
    ]


def summary(rows: list[Row]) -> list[str]:
    lines = [
        f"{row[1]:,} tiny files: {row[5]:.0f} MiB, {row[1] / row[3]:.0f} files/s" for row in rows if row[0] == "tiny"
    ]
    alone, jobs = ([row for row in rows if row[0] == what] for what in ("engine", "job"))
    if alone:
        pairs = list(zip(alone, jobs, strict=True))
        wall, cpu = median(a[3] / b[3] for a, b in pairs), median(a[4] / b[4] for a, b in pairs)
        rate = median(row[1] / row[3] for row in jobs)
        lines.append(f"photographs: {rate:.1f} images/s, {wall:.1%} of the engine's rate, {cpu:.1%} by CPU time")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, help="without it, memory alone")
    parser.add_argument("--tiny", type=int, default=200_000)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("results/batch.csv"))
    parser.add_argument("--smoke", action="store_true", default=os.environ.get("SMOKE") == "1")
    options = parser.parse_args()
    if options.smoke:
        options.tiny, options.images, options.rounds = 500, 32, 1
        options.out = Path(tempfile.mkdtemp(prefix="resnest-smoke-")) / options.out.name
    with tempfile.TemporaryDirectory() as place:
        rows = [tiny(Path(place), options.tiny)]
        if options.photos:
            found = [path for path in sorted(options.photos.iterdir()) if path.suffix.lower() in SUFFIXES]
            rows += throughput(Path(place), found[: options.images], options.batch, options.rounds)
    photographs = f"the first {options.images} of {options.photos.parent.name}" if options.photos else "none"
    notes = [f"network: {SPEC} for tiny files, resnest50.onnx for photographs", f"photographs: {photographs}"]
    with options.out.open("w", encoding="utf-8", newline="") as file:
        file.write(head(environment(threads=usable_cores(), notes=notes)))
        table = csv.writer(file, lineterminator="\n")
        table.writerow(HEADER)
        table.writerows((*row[:3], *(f"{value:.3f}" for value in row[3:])) for row in rows)
    print("\n".join(summary(rows)))


if __name__ == "__main__":
    main()
