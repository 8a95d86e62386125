"""The paper's first figure on this machine: accuracy as published over the time that was measured.

    python benchmarks/family.py             # writes results/family-cpu.csv and docs/accuracy-latency.svg
    python benchmarks/family.py --smoke     # the same path with four networks, writes into a temporary folder

ResNeSt 14 to 269, EfficientNet B0 to B7, ResNet-D and ConvNeXt, each at its published crop: one image, onnxruntime,
float32, all through the same exporter.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from resnest.bench import bench, lines, plan, write_table
from resnest.bench.plot import FIGURES, draw

ROUNDS = 7
FEW = ["resnest14", "resnest26", "timm:tf_efficientnet_b0", "timm:resnet50d"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, default=Path("results/family-cpu.csv"))
    parser.add_argument("--plot", type=Path, default=Path("docs/accuracy-latency.svg"))
    parser.add_argument("--smoke", action="store_true", default=os.environ.get("SMOKE") == "1")
    options = parser.parse_args()
    if options.smoke:
        folder = Path(tempfile.mkdtemp(prefix="resnest-family-"))
        options.out, options.plot = folder / options.out.name, folder / options.plot.name
    planned = plan(
        FEW if options.smoke else list(FIGURES),
        engines=["onnxruntime"],
        batches=[1],
        rounds=2 if options.smoke else options.rounds,
        threads=options.threads,
    )
    table = bench(
        planned,
        traced=True,
        on_step=lambda step: print(step, flush=True),
        on_round=lambda part: write_table(options.out, part),
    )
    draw(options.plot, table)
    print("\n".join(lines(table)))
    print(f"{options.out}, {options.plot}")


if __name__ == "__main__":
    main()
