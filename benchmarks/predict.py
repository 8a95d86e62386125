"""Predicting a folder of photographs against the engine alone, and `resnest predict` as a whole process.

    python benchmarks/predict.py --photos DIR            # writes results/predict-cpu.csv, prints a table
    python benchmarks/predict.py --photos DIR --model m.onnx         # with a network of your own

Without `--model` it is ResNeSt-50 at 224 pixels, exported with random weights.

`engine` runs as many batches as the folder fills, all of one batch that lies in memory; `folder` is everything from
files to named classes: `Predictor.stream`. They take turns in one process, the first of them changing from round to
round. The share is the median over rounds of engine / folder: 100 % means that decoding costs nothing. Other work on
the machine changes wall time, and gives more of it to what has more threads, so CPU time stands beside it: what
decoding adds to a machine whose cores are all busy. `process` is one photograph in a process of its own, wall time.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

import resnest
from resnest.bench.networks import export
from resnest.bench.table import environment, head
from resnest.runtime.decode import SUFFIXES, BadImage
from resnest.runtime.hardware import usable_cores
from resnest.runtime.preprocess import Preprocess

Row = tuple[str, str, int, int, int, float, float]  # what, engine, batch, images, round, wall and CPU seconds
HEADER = ("what", "engine", "batch", "images", "round", "seconds", "cpu_seconds")


def timed(run: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(model: str, engine: str, photos: list[Path], batch: int, rounds: int) -> list[Row]:
    predictor = resnest.Predictor(model, engine=engine, batch_size=batch)
    name, preprocess = predictor.engine.name, predictor.card.preprocess
    assert isinstance(preprocess, Preprocess)
    size, sizes = preprocess.size, np.full((batch, 2), preprocess.size)
    images = np.random.default_rng(0).normal(size=(batch, 3, size, size)).astype(np.float32)
    full, rest = divmod(len(photos), batch)

    def alone() -> None:
        for count in [batch] * full + [rest] * bool(rest):
            predictor.engine(images[:count], sizes[:count])

    def folder() -> None:
        assert not [result for result in predictor.stream(photos) if isinstance(result, BadImage)]

    turns = [("engine", alone), ("folder", folder)]
    for _, run in turns:  # warm-up
        run()
    rows = []
    for index in range(rounds):
        for what, run in turns[index % 2 :] + turns[: index % 2]:
            rows.append((what, name, batch, len(photos), index, *timed(run)))
    return rows


def whole_process(model: str, engine: str, photo: Path, rounds: int) -> list[Row]:
    command = [sys.executable, "-m", "resnest", "predict", model, str(photo), "--engine", engine]
    rows = []
    for index in range(rounds):
        before, started = os.times(), time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds, after = time.perf_counter() - started, os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        rows.append(("process", engine, 1, 1, index, seconds, cpu))
    return rows


def as_text(rows: list[Row]) -> list[dict[str, str]]:
    """As the file has them."""
    texts = [(*map(str, row[:5]), f"{row[5]:.6f}", f"{row[6]:.6f}") for row in rows]
    return [dict(zip(HEADER, text, strict=True)) for text in texts]


def summary(rows: list[dict[str, str]], engine: str) -> str:
    """A row for docs/predict.md: rates, shares of the engine's rate by wall and by CPU time, the whole process."""
    times = {what: [row for row in rows if row["what"] == what] for what in ("engine", "folder", "process")}
    pairs = list(zip(times["engine"], times["folder"], strict=True))
    shares = [median(float(alone[at]) / float(folder[at]) for alone, folder in pairs) for at in HEADER[5:]]
    rates = [median(int(row["images"]) / float(row["seconds"]) for row in times[what]) for what in ("engine", "folder")]
    process = median(float(row["seconds"]) for row in times["process"])
    cells = (engine, *(f"{rate:.1f}" for rate in rates), *(f"{share:.1%}" for share in shares), f"{process:.2f} s")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="an exported file")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--engines", nargs="+", default=["onnxruntime", "openvino"])
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("results/predict-cpu.csv"))
    parser.add_argument("--smoke", action="store_true", default=os.environ.get("SMOKE") == "1")
    options = parser.parse_args()
    if options.smoke:
        options.images, options.rounds = 32, 1
        options.out = Path(tempfile.mkdtemp(prefix="resnest-smoke-")) / options.out.name
    found = [path for path in sorted(options.photos.iterdir()) if path.suffix.lower() in SUFFIXES]
    photos, done = found[: options.images], []
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or Path(folder, "resnest50.onnx")
        if options.model is None:
            export("resnest50", "ours", model, 224)
        notes = [f"network: {model.name}", f"photographs: the first {len(photos)} of {options.photos.parent.name}"]
        for engine in options.engines:
            measured = measure(str(model), engine, photos, options.batch, options.rounds)
            rows = as_text(measured + whole_process(str(model), engine, photos[0], options.rounds))
            print(summary(rows, engine), flush=True)
            done += rows
    with options.out.open("w", newline="") as file:
        file.write(head(environment(threads=usable_cores(), notes=notes)))
        table = csv.DictWriter(file, HEADER, lineterminator="\n")
        table.writeheader()
        table.writerows(done)
    print(options.out)


if __name__ == "__main__":
    main()
