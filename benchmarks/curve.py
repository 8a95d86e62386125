"""The curve of a run: its evaluations as CSV, and as a picture for the README.

python benchmarks/curve.py runs/a --name imagenette128   # results/imagenette128.csv, docs/imagenette128.svg
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from resnest.bench.environment import head, of_run
from resnest.training.run import RunDirectory

ACCENT, INK = "#2f6fdb", "#6b7280"  # legible on white and on dark pages


def write_csv(path: Path, account: dict[str, Any], evaluations: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        images = f"images: {account['train_images']} to train, {account['val_images']} to validate"
        file.write(head([*of_run(account), images]))
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("epoch", "step", "top1", "loss", "seconds"))
        for line in evaluations:
            rows.writerow((line["epoch"], line["step"], f"{line['top1']:.6f}", f"{line['loss']:.6f}", line["seconds"]))


def draw(path: Path, evaluations: list[dict[str, Any]]) -> None:
    figure = Figure(figsize=(6.4, 2.6), layout="constrained")
    axes = figure.add_subplot()
    minutes = [line["seconds"] / 60 for line in evaluations]
    percent = [100 * line["top1"] for line in evaluations]
    axes.plot(minutes, percent, color=ACCENT, marker="o", markersize=5)
    for x, y in zip(minutes, percent, strict=True):
        axes.annotate(f"{y:.1f}", (x, y), textcoords="offset points", xytext=(0, 7), ha="center", color=INK, fontsize=9)
    axes.set_xlabel("minutes on two cores", color=INK)
    axes.set_ylabel("top-1, %", color=INK)
    axes.set_xlim(left=0)
    axes.set_ylim(min(percent) - 5, 100)
    axes.tick_params(colors=INK)
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, transparent=True, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--name", required=True)
    options = parser.parse_args()
    run = RunDirectory(options.run)
    evaluations = [line for line in run.read_lines(run.metrics) if line["kind"] == "eval"]
    account = json.loads((options.run / "run.json").read_text(encoding="utf-8"))
    write_csv(Path("results") / f"{options.name}.csv", account, evaluations)
    draw(Path("docs") / f"{options.name}.svg", evaluations)


if __name__ == "__main__":
    main()
