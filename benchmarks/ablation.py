"""The paper's ablation (section 5.1, table 2): splits and groups of split attention, against ResNet-D at equal cost.

    python benchmarks/ablation.py --data imagenette128            # every variant and seed; goes on where it was stopped
    python benchmarks/ablation.py --data cifar10-jpeg --seeds 3
    python benchmarks/ablation.py --data imagenette128 --smoke    # the same path in minutes, writes no results

All variants are trained the same way: same recipe, and for one seed the same images in the same order with the same
augmentation, so differences between variants are taken seed by seed. On a GPU at full width (50 layers, 128 pixels);
on a CPU a narrow twin (26 layers, half the width, 64 pixels). What counts is the accuracy after the last epoch: the
best epoch would be chosen on the images that it is judged by.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scipy import stats
from torch.nn import functional as F

from resnest.bench.table import environment, head
from resnest.classification.recipes import ClassificationRecipe
from resnest.data.settings import DataSettings
from resnest.network import ResNeSt
from resnest.recipes import ModelSettings, OptimSettings, Recipe, TrainSettings
from resnest.spec import macs, parameters
from resnest.training.run import RunDirectory
from resnest.training.train import resume, train

BASELINE = "0s1x64d"  # ResNet-D: a plain 3x3 in place of the split attention
VARIANTS: dict[str, dict[str, Any]] = {
    BASELINE: {"radix": 0, "avd": False},
    "1s1x64d": {"radix": 1, "avd_first": True},
    "2s1x64d": {"radix": 2, "avd_first": True},
    "4s1x64d": {"radix": 4, "avd_first": True},
    "2s2x40d": {"radix": 2, "cardinality": 2, "width": 40, "avd_first": True},
}
MOST_SEEDS = 100
Rows = list[dict[str, Any]]
TWIN: dict[str, Any] = {"depths": [2, 2, 2, 2], "planes": [32, 64, 128, 256], "stem_width": 16}


@dataclass(frozen=True)
class Setup:
    """How one data set is trained on, at full width or as the narrow twin."""

    spec: dict[str, Any]
    size: int
    eval_size: int
    min_area: float
    epochs: int


SETUPS = {
    ("imagenette128", "full"): Setup({}, 128, 128, 0.25, 40),
    ("imagenette128", "twin"): Setup(TWIN, 64, 64, 0.35, 8),
    ("cifar10-jpeg", "full"): Setup({"stem": "small"}, 32, 32, 0.5, 40),
    ("cifar10-jpeg", "twin"): Setup({**TWIN, "planes": [16, 32, 64, 128], "stem": "small"}, 32, 32, 0.6, 3),
}


def recipe_for(data: str, scale: str, variant: str, seed: int) -> ClassificationRecipe:
    """SGD as in the paper, shorter, and without what only long training gains from (mixup, AutoAugment, DropBlock)."""
    setup = SETUPS[data, scale]
    return ClassificationRecipe(
        name=f"ablation-{variant}",
        model=ModelSettings(name="resnest50", spec={**setup.spec, **VARIANTS[variant]}),
        data=DataSettings(size=setup.size, eval_size=setup.eval_size, eval_crop=1.0, min_area=setup.min_area),
        optim=OptimSettings(lr=0.1, weight_decay=5e-4, warmup_epochs=1.0),
        train=TrainSettings(epochs=setup.epochs, batch_size=64, seed=seed, eval_batch_size=128, save_every=50),
    )


def train_one(recipe: Recipe, data: Path, out: Path, settings: Sequence[str]) -> Rows:
    """Train, or go on, or do nothing if the run is finished; its evaluations."""
    run = RunDirectory(out)
    if not is_finished(out):
        if any(run.checkpoints.glob("*.pt")):
            resume(out, data=data, quiet=False)
        else:
            train(recipe, data=data, out=out, settings=settings, overwrite=True, quiet=False)
    return [line for line in run.read_lines(run.metrics) if line["kind"] == "eval"]


def train_all(options: argparse.Namespace) -> Rows:
    """Seed by seed, so that what is there at any time is balanced; one row for every finished run, earlier ones too."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    folder = options.runs / f"{options.data.name}-{options.scale}"
    plan = [(variant, seed) for seed in range(options.seeds) for variant in options.variants]
    done = [(v, s) for v in VARIANTS for s in range(MOST_SEEDS) if is_finished(folder / f"{v}-seed{s}")]
    for variant, seed in [*done, *plan]:
        recipe = recipe_for(options.data.name, options.scale, variant, seed)
        print(f"{options.data.name} {variant} seed {seed}", flush=True)
        evaluations = train_one(recipe, options.data, folder / f"{variant}-seed{seed}", options.settings)
        last, best = evaluations[-1], max(line["top1"] for line in evaluations)
        row = {"data": options.data.name, "scale": options.scale, "variant": variant, "seed": seed}
        told = {"epochs": last["epoch"], "top1_last": last["top1"], "top1_best": best, "loss_last": last["loss"]}
        rows[variant, seed] = {**row, **told}
        if not options.smoke:
            write(options.results / f"ablation-{options.data.name}-{options.scale}.csv", list(rows.values()))
    return list(rows.values())


def is_finished(out: Path) -> bool:
    return (out / "report.html").exists()  # written last


def measure_cost(options: argparse.Namespace) -> Rows:
    """Images a second of a training step, turn by turn in one process; parameters and MACs."""
    setup, device = SETUPS[options.data.name, options.scale], "cuda" if options.scale == "full" else "cpu"
    specs = {v: recipe_for(options.data.name, options.scale, v, 0).model.resolve()[0] for v in VARIANTS}
    batch = 64
    images = torch.randn(batch, 3, setup.size, setup.size, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=device) % 10
    nets = {}
    for variant, spec in specs.items():
        net = ResNeSt(spec, num_classes=10).to(device).to(memory_format=torch.channels_last).train()
        nets[variant] = (net, torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9))
    rows = []
    for turn in range(-2, options.rounds):  # the first two warm up
        for variant, (net, optimizer) in nets.items():
            start = time.perf_counter()
            optimizer.zero_grad()
            F.cross_entropy(net(images), labels).backward()
            optimizer.step()
            if device == "cuda":
                torch.cuda.synchronize()
            if turn >= 0:
                rate = f"{batch / (time.perf_counter() - start):.1f}"
                rows.append({"data": options.data.name, "variant": variant, "round": turn, "images_per_second": rate})
    for row in rows:
        spec = specs[row["variant"]]
        row["parameters"] = parameters(spec, num_classes=10)
        row["macs"] = macs(spec, size=setup.size, num_classes=10)
    return rows


def summary(rows: Rows, cost: Rows) -> list[str]:
    """The table of the README: mean and spread, and the difference to the baseline over paired seeds."""
    lines = [
        "| | parameters | MACs | training, images/s | top-1, % (spread) | points to ResNet-D | loss to ResNet-D |",
        "|---|---|---|---|---|---|---|",
    ]
    top1 = {(row["variant"], row["seed"]): 100 * float(row["top1_last"]) for row in rows}
    loss = {(row["variant"], row["seed"]): float(row["loss_last"]) for row in rows}
    for variant in dict.fromkeys(row["variant"] for row in rows):
        points = [value for (name, _), value in top1.items() if name == variant]
        spread = f"{statistics.stdev(points):.2f} of {len(points)}" if len(points) > 1 else "1 run"
        own = [row for row in cost if row["variant"] == variant]
        rate = statistics.median(float(row["images_per_second"]) for row in own)
        size = f"{int(own[0]['parameters']) / 1e6:.2f} M | {int(own[0]['macs']) / 1e6:.1f} M"
        name = f"{variant} (ResNet-D)" if variant == BASELINE else variant
        reached = f"{statistics.mean(points):.2f} ({spread})"
        apart = f"{difference(top1, variant, 2)} | {difference(loss, variant, 3)}"
        lines.append(f"| {name} | {size} | {rate:.0f} | {reached} | {apart} |")
    return lines


def difference(found: dict[tuple[str, Any], float], variant: str, digits: int) -> str:
    """Mean of the paired differences to the baseline, with Student's 95 % interval."""
    pairs = [value - found[BASELINE, seed] for (name, seed), value in found.items() if name == variant]
    if variant == BASELINE or len(pairs) < 2:
        return "-"
    half = float(stats.t.ppf(0.975, len(pairs) - 1)) * statistics.stdev(pairs) / math.sqrt(len(pairs))
    mean = statistics.mean(pairs)
    return f"{mean:+.{digits}f} ({mean - half:+.{digits}f} to {mean + half:+.{digits}f})"


def read(path: Path) -> Rows:
    lines = path.read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def write(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    told = environment(threads=torch.get_num_threads(), device=device, packages=("torch",))
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(head(told))
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of imagenette128 or cifar10-jpeg")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15, help="of the cost measurement")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--cost", action="store_true", help="measure the cost anew, of results that are there")
    parser.add_argument("--smoke", action="store_true", default=os.environ.get("SMOKE") == "1")
    options = parser.parse_args()
    options.scale = "full" if torch.cuda.is_available() else "twin"
    options.settings = []
    if options.smoke:
        options.seeds, options.rounds, options.runs = min(options.seeds, 2), 3, options.runs / "smoke"
        options.settings = ["train.max_steps=8"]
    return options


def main() -> None:
    options = parse()
    kept = options.results / f"ablation-{options.data.name}-{options.scale}.csv"
    rows = read(kept) if options.cost else train_all(options)
    cost = measure_cost(options)
    if not options.smoke:
        write(options.results / f"ablation-{options.data.name}-{options.scale}-cost.csv", cost)
    print("\n".join(summary(rows, cost)))


if __name__ == "__main__":
    main()
