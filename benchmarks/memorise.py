"""Every detector learns four pictures by heart: the loss falls, and what it then finds is what was annotated.

python benchmarks/memorise.py --data ../shared/data/coco200-panoptic         # results/detection-memorised.csv
python benchmarks/memorise.py --data DIR --only faster_rcnn --steps 20       # a look; nothing is written

The pictures are the first four of one shape in the training part with two to six objects, all of 48 x 48 pixels or
more, no two of a class so close that suppression would take one for the other. Of one shape, since a training batch is
padded to its largest picture, evaluation pads none for another, and split attention averages over the padding: learnt
in a batch of mixed shapes, pictures alone get boxes that are several pixels off. One size, no flips, AdamW, a
ResNeSt-14 of a quarter of the width from random weights, its attention with layer norm, pyramid and heads of 64
channels with group norm.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from resnest.bench.table import environment, head
from resnest.data.loading import training_batches
from resnest.data.order import seeded
from resnest.data.settings import DataSettings
from resnest.data.sources import open_dataset
from resnest.detection.card import DetectorSpec
from resnest.detection.data import DetectionSamples
from resnest.detection.evaluation import overlap
from resnest.detection.recipes import DetectionRecipe, DetectionSettings
from resnest.detection.task import DetectionTask
from resnest.inference.evaluation import evaluate_network
from resnest.recipes.schema import ModelSettings, OptimSettings, TrainSettings

DETECTORS: dict[str, dict[str, Any]] = {
    "faster_rcnn": {},
    "cascade_rcnn": {"cascade": True},
    "mask_rcnn": {"masks": True},
    "cascade_mask_rcnn": {"cascade": True, "masks": True},
    "lvis_mask_rcnn": {
        "masks": True,
        "class_loss": "seesaw",
        "normed_classifier": True,
        "max_detections": 300,
        "score_threshold": 1e-4,
    },
    "faster_rcnn_dcn": {"deform": (False, True, True, True)},
    "cascade_mask_rcnn_dcn": {"cascade": True, "masks": True, "deform": (False, True, True, True)},
    "retinanet": {"kind": "retinanet"},
    "fcos": {"kind": "fcos"},
}
SMALL: dict[str, Any] = {"norm": "group", "fpn_channels": 64}
SMALL_HEADS: dict[str, dict[str, Any]] = {
    "rcnn": {
        "box_channels": 64,
        "box_convs": 0,
        "box_fcs": 2,
        "box_features": 256,
        "mask_channels": 64,
        "mask_convs": 2,
        "rpn_batch": 128,
        "roi_batch": 128,
        "pre_nms": (500, 300),
        "post_nms": (200, 100),
    },
    "retinanet": {"head_norm": "group", "head_convs": 2},
    "fcos": {"head_convs": 2},
}
PICTURES, LEAST_SIDE, LR, WARMUP = 4, 48, 1e-3, 20
MOST_SHARED = 0.4  # IoU; suppression begins at 0.5 or 0.6


def choose(samples: DetectionSamples) -> DetectionSamples:
    """Pictures on which every object can be seen at this size, and that fill the same canvas."""
    recipe, chosen = recipe_of(DetectorSpec(), 1), defaultdict[tuple[int, int], list[int]](list)
    preprocess = recipe.detection.preprocess(recipe.data)
    for index, (objects, size) in enumerate(zip(samples.objects, samples.sizes().tolist(), strict=True)):
        sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
        if not 2 <= len(sides) <= 6 or sides.min() < LEAST_SIDE or objects.crowd.any():
            continue
        shared = np.triu(overlap(objects.boxes, objects.boxes, objects.crowd), 1)
        if (shared * (objects.labels[:, None] == objects.labels)).max() < MOST_SHARED:
            chosen[preprocess.padded_size(*size)].append(index)
    return samples.subset(np.array(max(chosen.values(), key=len)[:PICTURES]))


def recipe_of(detector: DetectorSpec, steps: int) -> DetectionRecipe:
    return DetectionRecipe(
        name="memorise",
        model=ModelSettings(
            name="resnest14",
            spec={"planes": [16, 32, 64, 128], "stem_width": 16, "attention_norm": "layer"},
        ),
        data=DataSettings(flip=False, workers=0),
        detector=detector,
        detection=DetectionSettings(short=(192,), long=256, eval_short=192, eval_long=256),
        optim=OptimSettings(warmup_epochs=0),  # WARMUP is below
        train=TrainSettings(epochs=steps, batch_size=PICTURES),
    )


def memorise(samples: DetectionSamples, detector: DetectorSpec, steps: int) -> dict[str, float]:
    """The losses of the first and the last step, and the AP on what was learnt."""
    recipe = recipe_of(detector, steps)
    task = DetectionTask(recipe, samples)
    dataset = task.dataset(samples)
    began = time.perf_counter()
    with seeded(0):
        net = task.build().to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=0.0)
        losses = []
        for step in range(steps):
            (batch,) = training_batches(dataset, recipe.data, batch_size=PICTURES, seed=0, epoch=step)
            optimizer.param_groups[0]["lr"] = LR * min(1, (step + 1) / WARMUP) * (0.1 if step > 0.8 * steps else 1)
            loss = task.loss(net, batch.images, batch.labels)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
            optimizer.step()
            losses.append(loss.item())
    seconds = time.perf_counter() - began
    without = [name for name, one in net.named_parameters() if one.grad is None or not one.grad.any()]
    figures = evaluate_network(
        net, samples, task.card({}), device=torch.device("cpu"), batch_size=PICTURES, workers=0
    ).figures
    return {
        "first_loss": losses[0],
        "last_loss": float(np.mean(losses[-5:])),
        "without_gradient": len(without),
        **{name: figures[name] for name in ("box_ap", "box_ap50", "mask_ap", "mask_ap50") if name in figures},
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--only", choices=DETECTORS)
    parser.add_argument("--out", type=Path, default=Path("results/detection-memorised.csv"))
    options = parser.parse_args()
    train = open_dataset(options.data).train
    assert isinstance(train, DetectionSamples)
    samples = choose(train)
    print(f"{len(samples)} pictures with {sum(len(one.boxes) for one in samples.objects)} objects")
    rows = []
    for name in [options.only] if options.only else DETECTORS:
        settings = DETECTORS[name]
        detector = DetectorSpec(**SMALL, **SMALL_HEADS[settings.get("kind", "rcnn")], **settings)
        found = memorise(samples, detector, options.steps)
        rows.append({"detector": name, "steps": options.steps, **found})
        print(rows[-1], flush=True)
    if options.only:
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with options.out.open("w", newline="", encoding="utf-8") as file:
        file.write(head(environment(threads=torch.get_num_threads(), notes=["figures: of the pictures learnt"])))
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


if __name__ == "__main__":
    main()
