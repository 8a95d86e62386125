"""The curve of a run: its evaluations as CSV, and as a picture for README and docs.

python benchmarks/curve.py runs/a --name imagenette128       # results/imagenette128.csv, docs/imagenette128.svg
python benchmarks/curve.py runs/bccd --name bccd             # of a detector: box and mask AP
python benchmarks/curve.py runs/camvid --name camvid         # of a segmenter: mIoU and pixel accuracy
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from resnest.bench.table import head, of_run
from resnest.training.run import RunDirectory

ACCENT, OTHER, INK = "#2f6fdb", "#c2571a", "#6b7280"  # legible on white and on dark pages
# What the CSV holds if the run has it, and what is drawn
COLUMNS = ("top1", "loss", "box_ap", "box_ap50", "mask_ap", "mask_ap50", "miou", "pixel_accuracy", "mean_accuracy")
DRAWN = {
    "top1": "top-1", "box_ap50": "box AP50", "box_ap": "box AP", "mask_ap50": "mask AP50", "mask_ap": "mask AP",
    "pixel_accuracy": "pixels", "miou": "mIoU",
}  # fmt: skip
KINDS = {"miou": ("pixel_accuracy", "miou"), "mask_ap": ("mask",), "box_ap": ("box",), "top1": ("top1",)}  # first wins


def write_csv(path: Path, account: dict[str, Any], evaluations: list[dict[str, Any]]) -> None:
    names = [name for name in COLUMNS if name in evaluations[0]]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        images = f"images: {account['train_images']} to train, {account['val_images']} to validate"
        file.write(head([*of_run(account), images]))
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("epoch", "step", *names, "seconds"))
        for line in evaluations:
            rows.writerow((line["epoch"], line["step"], *[f"{line[name]:.6f}" for name in names], line["seconds"]))


def draw(path: Path, evaluations: list[dict[str, Any]], threads: int) -> None:
    """One figure with its values, or two: of pixels, of masks if there are any, or of boxes."""
    kind = next(starts for name, starts in KINDS.items() if name in evaluations[0])
    names = [name for name in DRAWN if name in evaluations[0] and name.startswith(kind)]
    figure = Figure(figsize=(6.4, 2.6), layout="constrained")
    axes = figure.add_subplot()
    minutes = [line["seconds"] / 60 for line in evaluations]
    for name, colour in zip(names, (ACCENT, OTHER), strict=False):
        percent = [100 * line[name] for line in evaluations]
        axes.plot(minutes, percent, color=colour, marker="o", markersize=5 if len(percent) < 8 else 3)
        labelled = range(len(percent)) if len(percent) < 8 else [len(percent) - 1]
        for place in labelled:
            axes.annotate(
                f"{percent[place]:.1f}" + (f" {DRAWN[name]}" if len(names) > 1 else ""),
                (minutes[place], percent[place]),
                textcoords="offset points", xytext=(0, 7), ha="right" if len(names) > 1 else "center", color=INK,
                fontsize=9,
            )  # fmt: skip
    axes.set_xlabel(f"minutes, {threads} thread{'s' if threads > 1 else ''}", color=INK)
    axes.set_ylabel(f"{DRAWN[names[0]]}, %" if len(names) == 1 else "%", color=INK)
    axes.set_xlim(left=0)
    axes.set_ylim(max(0, 100 * min(line[name] for line in evaluations for name in names) - 5), 100)
    axes.tick_params(colors=INK)
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, transparent=True, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--name", required=True)
    options = parser.parse_args()
    run = RunDirectory(options.run)
    evaluations = [line for line in run.read_lines(run.metrics) if line["kind"] == "eval"]
    account = json.loads((options.run / "run.json").read_text(encoding="utf-8"))
    write_csv(Path("results") / f"{options.name}.csv", account, evaluations)
    draw(Path("docs") / f"{options.name}.svg", evaluations, account["threads"])


if __name__ == "__main__":
    main()
