"""Panoptic FPN learns eight pictures by heart, end to end: trained, predicted, written to files, read again, measured.

python benchmarks/memorise_panoptic.py --data ../shared/data/coco200-panoptic --start runs/a
python benchmarks/memorise_panoptic.py --data DIR --start RUN --steps 20 --out look.csv        # a look

The pictures are the first eight of the training part with one to eight things, all of 32 x 32 pixels or more, and
without crowds. One size, no flips, AdamW; the small recipe's network, a ResNeSt-14 of half the width, whose backbone
starts from a classifier (`resnest train imagenette`) and keeps its statistics. With `--keep DIR` the maps that it
predicts stay there, in COCO's form and drawn over the pictures.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from resnest.bench.table import environment, head
from resnest.data.loading import training_batches
from resnest.data.order import seeded
from resnest.data.settings import DataSettings
from resnest.data.sources import open_dataset
from resnest.detection.recipes import DetectionSettings
from resnest.inference.torch_engine import TorchEngine
from resnest.panoptic.data import PanopticSamples
from resnest.panoptic.metrics import PanopticMetrics
from resnest.panoptic.model import PanopticFPN
from resnest.panoptic.recipes import panoptic_small
from resnest.panoptic.result import PanopticFiles, PanopticMap, write_panoptic
from resnest.panoptic.task import PanopticTask
from resnest.recipes.schema import Recipe, TrainSettings
from resnest.runtime.predictor import ImagePredictor

PICTURES, PER_STEP, LEAST_SIDE, LR, WARMUP = 8, 4, 32, 1e-3, 20


def choose(samples: PanopticSamples) -> PanopticSamples:
    """Pictures on which every thing can be seen at this size."""
    chosen: list[int] = []
    for index, objects in enumerate(samples.objects):
        sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
        if 1 <= len(sides) <= 8 and sides.min() >= LEAST_SIDE and not objects.crowd.any():
            chosen.append(index)
    return samples.subset(np.array(chosen[:PICTURES]))


def recipe_of(start: str | None, steps: int) -> Recipe:
    small = panoptic_small()
    assert small.panoptic is not None
    return replace(
        small,
        name="memorise",
        model=replace(small.model, pretrained=start),
        data=DataSettings(flip=False, workers=0),
        detection=DetectionSettings(short=(256,), long=384, eval_short=256, eval_long=384, backbone_norm="frozen"),
        panoptic=replace(small.panoptic, stuff_area=1024),
        train=TrainSettings(epochs=steps * PER_STEP // PICTURES, batch_size=PER_STEP),
    )


def memorise(task: PanopticTask, samples: PanopticSamples, steps: int) -> tuple[PanopticFPN, list[float]]:
    """The network that has learnt, and the loss of every step."""
    recipe = task.recipe
    net = task.build()
    assert isinstance(net, PanopticFPN)
    print(task.load_pretrained(net))
    net = net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=0.0)
    losses: list[float] = []
    dataset = task.dataset(samples)
    for epoch in range(recipe.train.epochs):
        for batch in training_batches(dataset, recipe.data, batch_size=PER_STEP, seed=0, epoch=epoch):
            done = len(losses)
            optimizer.param_groups[0]["lr"] = LR * min(1, (done + 1) / WARMUP) * (0.1 if done > 0.8 * steps else 1)
            loss = task.loss(net.train(), batch.images, batch.labels)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
            optimizer.step()
            losses.append(loss.item())
            if done % 20 == 0:
                print(f"step {done} loss {loss.item():.3f}", flush=True)
    return net, losses


def predicted(net: PanopticFPN, task: PanopticTask, samples: PanopticSamples) -> Iterator[tuple[int, PanopticMap]]:
    """What prediction says of the pictures, with their numbers."""
    predict = ImagePredictor(TorchEngine(net, "cpu", task=PanopticTask), task.card({}))
    for index, objects in enumerate(samples.objects):
        found = predict(samples.decode(index))
        assert isinstance(found, PanopticMap)
        yield objects.image_id, replace(found, name=samples.keys[index])


def measure(files: PanopticFiles, samples: PanopticSamples) -> dict[str, float]:
    """Of the maps in files, against the data."""
    metrics = PanopticMetrics(len(samples.class_names), samples.classes.things)
    for index, objects in enumerate(samples.objects):
        metrics.update(files.load(objects.image_id), samples.truth(index))
    return metrics.compute().figures


def draw(files: PanopticFiles, samples: PanopticSamples, folder: Path) -> None:
    """What was found and what is true, over the pictures."""
    for index, objects in enumerate(samples.objects):
        image = samples.decode(index)
        for kind, one in (("found", files.load(objects.image_id)), ("truth", samples.truth(index))):
            one.draw(image).save(folder / f"{objects.image_id}-{kind}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--start", help="a classifier, half-width ResNeSt-14")
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/panoptic-memorised.csv"))
    options = parser.parse_args()
    train = open_dataset(options.data, task="panoptic").train
    assert isinstance(train, PanopticSamples)
    samples = choose(train)
    things, segments = sum(len(one.boxes) for one in samples.objects), int(samples.segments.counts.sum())
    print(f"{len(samples)} pictures with {things} things and {segments - things} regions of stuff", flush=True)
    began = time.perf_counter()
    with seeded(0), TemporaryDirectory() as temporary:
        task = PanopticTask(recipe_of(options.start, options.steps), samples)
        net, losses = memorise(task, samples, options.steps)
        seconds = time.perf_counter() - began
        folder = options.keep or Path(temporary)
        write_panoptic(folder / "found.json", predicted(net.eval(), task, samples), samples.classes)
        files = PanopticFiles.read(folder / "found.json")
        if options.keep:
            draw(files, samples, folder)
        row = {
            "pictures": len(samples),
            "things": things,
            "stuff": segments - things,
            "steps": len(losses),
            "first_loss": losses[0],
            "last_loss": float(np.mean(losses[-4:])),
            **measure(files, samples),
            "seconds": round(seconds, 1),
        }
    print(row)
    with options.out.open("w", newline="", encoding="utf-8") as file:
        file.write(head(environment(threads=torch.get_num_threads(), notes=["figures: of the pictures learnt"])))
        table = csv.DictWriter(file, list(row), lineterminator="\n")
        table.writeheader()
        table.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()})


if __name__ == "__main__":
    main()
