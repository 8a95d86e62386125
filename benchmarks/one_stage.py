"""RetinaNet and FCOS against Faster R-CNN, on one backbone: accuracy after training, then speed.

    python benchmarks/one_stage.py train ../shared/data/bccd retinanet_small --weights runs/a   # results/one-stage.csv
    python benchmarks/one_stage.py speed ../shared/data/bccd                    # results/one-stage-speed.csv

`train` trains a recipe into RUNS/RECIPE, which starts from a classifier's run, and adds a line: AP and AP50 of its best
weights, and minutes of processor time, which other work on the machine hardly changes: 60 are 30 minutes of two cores.

`speed` times the runs that are there, contenders in turn: a training step on the same pictures (forward, backward,
optimiser), and a picture from its file to its objects, alone, by torch and by the exported files. Trained weights, for
suppression takes as long as there are candidates. An R-CNN's file has one size, that of most pictures. All cores that
the process may use: `taskset -c 0` in front for one.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

import resnest
from resnest.bench.table import environment, head
from resnest.data.loading import training_batches
from resnest.data.sources import open_dataset
from resnest.data.stores import path_of
from resnest.detection.recipes import DetectionRecipe
from resnest.detection.task import DetectionTask
from resnest.inference.model import Model
from resnest.recipes.reading import find_recipe
from resnest.runtime.hardware import usable_cores
from resnest.training.step import build_optimizers

CONTENDERS = ("detect_small", "retinanet_small", "fcos_small")
RESULTS, SPEED = Path("results/one-stage.csv"), Path("results/one-stage-speed.csv")
COLUMNS = ("contender", "data", "epochs", "seed", "box_ap", "box_ap50", "best_epoch", "processor_minutes")
FILES = {"onnxruntime": ("onnx", "model.onnx"), "openvino": ("openvino", "model.xml")}
TRAINING = "training step"
BATCHES, PICTURES = 4, 16  # in a turn


# --- accuracy ---


def train(options: argparse.Namespace) -> None:
    seen: list[tuple[float, int]] = []

    def note(step: int, figures: dict[str, float]) -> None:
        seen.append((figures["box_ap"], len(seen) + 1))

    settings = [f"train.seed={options.seed}", f"model.pretrained={options.weights}", *options.set]
    out = options.runs / options.contender
    told: dict[str, Any] = {"settings": settings, "quiet": False, "overwrite": True, "on_evaluation": note}
    done = resnest.train(options.contender, data=options.data, out=out, **told)
    shown = [f"{done.figures[key]:.4f}" for key in ("box_ap", "box_ap50")]
    minutes = sum(os.times()[:4]) / 60  # with those of worker processes
    row = (options.contender, options.data.name, len(seen), options.seed, *shown, max(seen)[1], f"{minutes:.1f}")
    print(", ".join(f"{name} {value}" for name, value in zip(COLUMNS, row, strict=True)))
    new = not options.results.exists()
    with options.results.open("a", newline="", encoding="utf-8") as file:
        if new:
            file.write(head(environment(notes=["start: weights of a classifier of docs/classify.md, imagenette128"])))
        table = csv.writer(file, lineterminator="\n")
        table.writerows([COLUMNS, row] if new else [row])


# --- speed ---


class TrainingStep:
    """A recipe's steps on the pictures that it takes first."""

    def __init__(self, name: str, run: Path, samples: Any) -> None:
        recipe = find_recipe(name)
        assert isinstance(recipe, DetectionRecipe)
        self.task, self.most = DetectionTask(recipe, samples), recipe.train.clip_norm or math.inf
        batches = training_batches(
            self.task.dataset(samples), recipe.data, batch_size=recipe.train.batch_size, seed=0, epoch=0
        )
        self.batches = [(batch.images, batch.labels) for batch in islice(batches, BATCHES)]
        self.net = self.task.build().to(memory_format=torch.channels_last)
        self.net.load_state_dict(Model.from_pretrained(run).net.state_dict())
        self.net.train()
        self.optimizers = build_optimizers(self.net, recipe.optim)

    def __call__(self) -> float:
        """Seconds a step."""
        began = time.perf_counter()
        for images, labels in self.batches:
            self.task.loss(self.net, images, labels).backward()
            assert math.isfinite(torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.most))
            for optimizer in self.optimizers:
                optimizer.step()
            self.net.zero_grad()
        return (time.perf_counter() - began) / len(self.batches)


class Prediction:
    """A run or an exported file, a picture at a time."""

    def __init__(self, model: Path, pictures: Sequence[Path], engine: str) -> None:
        self.predict = resnest.Predictor(model, device="cpu", engine=engine)
        self.pictures = pictures

    def __call__(self) -> float:
        """Seconds a picture."""
        began = time.perf_counter()
        for picture in self.pictures:
            self.predict(picture)
        return (time.perf_counter() - began) / len(self.pictures)


def contenders(options: argparse.Namespace, folder: Path) -> Iterator[tuple[tuple[str, str], Callable[[], float]]]:
    """(recipe, what), and what times it once; exported files are written into a folder."""
    data = open_dataset(options.data)
    assert data.val is not None
    pictures = [file for key in data.val.keys[:PICTURES] if (file := path_of(data.val.store, key))]
    for name in CONTENDERS:
        run = options.runs / name
        if not run.is_dir():
            print(f"{name}: no run in {run}, left out")
            continue
        yield (name, TRAINING), TrainingStep(name, run, data.train)
        yield (name, "torch"), Prediction(run, pictures, "torch")
        for engine, (format, out_name) in FILES.items():
            (folder / name).mkdir(exist_ok=True)
            out = resnest.export(run, format=format, out=folder / name / out_name, images=options.data).path
            yield (name, engine), Prediction(out, pictures, engine)


def speed(options: argparse.Namespace) -> None:
    torch.set_num_threads(usable_cores())
    with TemporaryDirectory() as folder:
        runs = dict(contenders(options, Path(folder)))
        for run in runs.values():
            run()
        rows = []
        for index in range(options.rounds):
            turns = list(runs.items())
            for (name, what), run in turns[index % len(turns) :] + turns[: index % len(turns)]:
                rows.append((name, what, index, run()))
    with options.results.open("w", newline="", encoding="utf-8") as file:
        file.write(
            head(environment(threads=torch.get_num_threads(), notes=["seconds: of a training step, or of a picture"]))
        )
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("contender", "what", "round", "seconds"))
        table.writerows((name, what, index, f"{seconds:.5f}") for name, what, index, seconds in rows)
    for name, what in runs:
        middle = median(seconds for one, other, _, seconds in rows if (one, other) == (name, what))
        shown = f"{middle:.3f} s" if what == TRAINING else f"{1000 * middle:.1f} ms, {1 / middle:.1f} images/s"
        print(f"{name}, {what}: {shown}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parts = parser.add_subparsers(required=True)
    training = parts.add_parser("train")
    training.add_argument("data", type=Path)
    training.add_argument("contender", choices=CONTENDERS)
    training.add_argument("--weights", default="null", help="run of a classifier, such as of the recipe imagenette")
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="changes of the recipe")
    training.add_argument("--results", type=Path, default=RESULTS)
    training.set_defaults(do=train)
    timing = parts.add_parser("speed")
    timing.add_argument("data", type=Path)
    timing.add_argument("--rounds", type=int, default=7)
    timing.add_argument("--results", type=Path, default=SPEED)
    timing.set_defaults(do=speed)
    for part in (training, timing):
        part.add_argument("--runs", type=Path, default=Path("runs/one-stage"))
    options = parser.parse_args()
    options.do(options)


if __name__ == "__main__":
    main()
