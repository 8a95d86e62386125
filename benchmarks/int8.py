"""What the choices of `resnest export --int8` give: accuracy of a trained network, speed of ResNeSt-50.

    python benchmarks/int8.py --model runs/a --data imagenette128    # writes results/int8-*.csv, prints a table

Each variant changes one choice. For accuracy all are calibrated on the same pictures and compared on the same others.
For speed it is ResNeSt-50 at 224 pixels with random weights, calibrated on synthetic pictures, against float32 of
timm's export in onnxruntime: turn by turn in one process, CPU time on one thread, which other work disturbs least.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from resnest.bench.networks import build, export, write_onnx
from resnest.bench.table import environment, head
from resnest.classification.card import ClassificationCard
from resnest.classification.export import ClassificationExporter
from resnest.exporters.calibration import BATCH, find_photos, synthetic
from resnest.exporters.formats import find_format
from resnest.exporters.int8 import compare, runners
from resnest.exporters.onnx import write
from resnest.exporters.quantize import Choices, quantize
from resnest.inference.model import Model
from resnest.inference.prepare import prepared
from resnest.runtime.preprocess import Preprocess

ROUNDS = {1: 25, 16: 7}  # of a batch
BASE = "timm's export"
PLAIN = "float32"
VARIANTS = {
    "as exported": Choices(),
    "the stem too": Choices(stem=True),
    "the attention's layers too": Choices(attention=True),
    "the max-pool after its ReLU": Choices(pool_first=False),
    "float sums with the shortcut": Choices(sums=False),
    "ranges without the outermost 0.1 %": Choices(percentile=True),
    "weights of 7 bits": Choices(narrow=True),
    "one scale a layer": Choices(per_channel=False),
}
ACCURACY = ("variant", "engine", "images", "float32", "int8", "lost", "won")
SPEED = ("variant", "engine", "batch", "round", "cpu_seconds")
Row = tuple[str | int, ...]


def quantized(folder: Path, batches: Iterable[NDArray[np.float32]]) -> dict[str, Path]:
    """Every variant of float32.onnx in a folder, and that file."""
    kept, files = list(batches), {PLAIN: folder / "float32.onnx"}
    for name, choices in VARIANTS.items():
        print(f"quantizing: {name}", flush=True)
        files[name] = folder / f"{len(files)}.onnx"
        quantize(files[PLAIN], files[name], kept, choices)
    return files


def accuracy(model: Model, data: str, folder: Path) -> list[Row]:
    calibration, held_back = find_photos(data, model)
    fast = prepared(model.net, memory_format=torch.contiguous_format)
    form, card = find_format("onnx"), model.card
    assert isinstance(card, ClassificationCard)
    write(fast, folder / "float32.onnx", {}, ClassificationExporter().interface(card, form))
    runs = runners(quantized(folder, (images for images, _ in calibration.batches(model.card))))
    others = {f"{name}/{engine}": run for (engine, name), run in runs.items() if name != PLAIN}
    costs = compare(runs["onnxruntime", PLAIN], others, held_back.batches(model.card), multi_label=False)
    rows: list[Row] = []
    for key, cost in costs.items():
        told = cost.to_dict()
        shares = (f"{told[kind]:.4f}" for kind in ("float32", "int8"))
        rows.append((*key.split("/"), cost.images, *shares, cost.lost, cost.won))
    return rows


def speed(folder: Path) -> list[Row]:
    card = ClassificationCard.of_imagenet("resnest50", Preprocess(size=224))
    export("resnest50", "ours", folder / "float32.onnx", 224)
    write_onnx(build("timm:resnest50d", "timm"), folder / "timm.onnx", 224)
    files = quantized(folder, ClassificationExporter().batches(card, synthetic().images, BATCH))
    runs = {(BASE, engine): run for (engine, _), run in runners({BASE: folder / "timm.onnx"}).items()}
    runs |= {(name, engine): run for (engine, name), run in runners(files).items()}
    rows: list[Row] = []
    for batch, rounds in ROUNDS.items():
        images = np.random.default_rng(0).standard_normal((batch, 3, 224, 224), np.float32)
        names = list(runs)
        for number in range(-2, rounds):  # two rounds to warm up
            first = number % len(names)
            for name in names[first:] + names[:first]:
                started = time.process_time()
                runs[name](images)
                if number >= 0:
                    rows.append((*name, batch, number, f"{time.process_time() - started:.6f}"))
    return rows


def save(path: Path, header: Sequence[str], rows: Sequence[Row], note: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(head(environment(threads=1, notes=[note])))
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    print(path)


def summary(accuracies: Sequence[dict[str, str]], speeds: Sequence[dict[str, str]]) -> list[str]:
    """The table of docs/int8.md."""
    lines = [
        "| | top-1 (lost, won), onnxruntime | OpenVINO | speed, onnxruntime, batch 1 | 16 | OpenVINO, batch 1 | 16 |",
        "|---|---|---|---|---|---|---|",
    ]
    costs = {(row["variant"], row["engine"]): row for row in accuracies}
    times: dict[tuple[str, str, str], list[float]] = {}
    for row in speeds:
        times.setdefault((row["variant"], row["engine"], row["batch"]), []).append(float(row["cpu_seconds"]))
    for name in (BASE, PLAIN, *VARIANTS):
        cells = []
        for engine in ("onnxruntime", "openvino"):
            cost = costs.get((name, engine))
            cells.append(f"{100 * float(cost['int8']):.2f} % ({cost['lost']}, {cost['won']})" if cost else "-")
        for engine in ("onnxruntime", "openvino"):
            for batch in map(str, ROUNDS):
                pairs = zip(times[BASE, "onnxruntime", batch], times[name, engine, batch], strict=True)
                cells.append(f"{median(base / own for base, own in pairs):.2f}x")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, default=Path("results"), help="a folder")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # what engines are given here
    places = [options.out / "int8-accuracy.csv", options.out / "int8-cpu.csv"]
    with tempfile.TemporaryDirectory() as folder:
        rows = accuracy(Model.from_pretrained(options.model), options.data, Path(folder))
        save(places[0], ACCURACY, rows, "top-1 on held-back pictures; lost, won: of int8 against float32")
    with tempfile.TemporaryDirectory() as folder:
        save(places[1], SPEED, speed(Path(folder)), "cpu_seconds: of one call, on one thread; ResNeSt-50, 224 px")
    print("\n".join(summary(*map(read, places))))


if __name__ == "__main__":
    main()
