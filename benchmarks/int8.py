"""What the choices of `resnest export --int8` give on a trained network: accuracy on held-back pictures, and speed.

    python benchmarks/int8.py --model runs/a --data imagenette128    # writes results/int8-cpu.csv, prints a table

Each variant changes one choice. All are calibrated on the same pictures and compared on the same others, in
onnxruntime; times are taken turn by turn, batch 16, in onnxruntime and OpenVINO, as ratios to onnxruntime's float32.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np
import torch

from resnest.bench.environment import environment, head
from resnest.export.accuracy import compare
from resnest.export.calibration import find_photos
from resnest.export.int8 import runners
from resnest.export.onnx import write
from resnest.export.quantize import Choices, quantize
from resnest.export.speed import measure
from resnest.inference.model import Model
from resnest.inference.prepare import prepared

BATCH = 16
HEADER = ("variant", "images", "float32", "int8", "lost", "won", "onnxruntime", "openvino")
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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, default=Path("results/int8-cpu.csv"))
    options = parser.parse_args()
    model = Model.from_pretrained(options.model)
    calibration, held_back = find_photos(options.data, model)
    side = model.card.preprocess.size
    images = np.random.default_rng(0).standard_normal((BATCH, 3, side, side), np.float32)
    batches = [batch for batch, _ in calibration.batches(model.card)]
    with tempfile.TemporaryDirectory() as folder:
        files = {"float32": Path(folder, "float.onnx")}
        fast = prepared(model.net, memory_format=torch.contiguous_format)
        write(fast, files["float32"], {}, in_chans=model.card.in_chans, size=side)
        for name, choices in VARIANTS.items():
            files[name] = Path(folder, f"{len(files)}.onnx")
            quantize(files["float32"], files[name], batches, choices)
        runs = runners(files)
        others = {name: runs["onnxruntime", name] for name in VARIANTS}
        costs = compare(runs["onnxruntime", "float32"], others, held_back.batches(model.card), multi_label=False)
        times = measure({" ".join(key): run for key, run in runs.items()}, images, seconds=90)
    rows = []
    for name, cost in costs.items():
        told, base = cost.to_dict(), times["onnxruntime float32"]
        ratios = [f"{base / times[f'{engine} {name}']:.3f}" for engine in ("onnxruntime", "openvino")]
        rows.append((name, cost.images, f"{told['float32']:.4f}", f"{told['int8']:.4f}", cost.lost, cost.won, *ratios))
    with options.out.open("w", newline="") as file:
        file.writelines(head(environment(notes=["ratios: of time, to onnxruntime's float32 at batch 16"])))
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([HEADER, *rows])
    for row in rows:
        print(" | ".join(map(str, row)))
    print(options.out)


if __name__ == "__main__":
    main()
