"""A training step on the fullest picture of a data set, Mask R-CNN on a CPU: its peak memory.

    python benchmarks/dense_memory.py --data ../shared/data/nuclei        # writes results/dense-memory.csv
    python benchmarks/dense_memory.py --data cells --smoke                # a small network, into a temporary folder

The picture with the most objects that are trained on, at short side 800 (its long side as it comes), as a run loads it:
opened, transformed and stacked by the training data set, one picture a step. Then forward, backward, and the
optimiser's first step with momentum; random weights, float32. Each case runs once in a process of its own, whose peak
resident memory (getrusage) is in the table; `before_mib` is what it had with the network and before the picture.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from peak_memory import Row, arguments, each_in_its_process, measured
from resnest.bench.table import environment, head
from resnest.data.loading import training_batches
from resnest.data.sources import open_dataset
from resnest.detection.data import DetectionSamples
from resnest.detection.recipes import DetectionRecipe
from resnest.detection.task import DetectionTask
from resnest.network.recompute import recompute_activations
from resnest.network.regularize import decay_groups
from resnest.network.tools import freeze, freeze_bn_statistics
from resnest.recipes.reading import find_recipe

SHORT, LONG = 800, 4096  # pixels; the long side as it comes
CASES = {  # recipe, gradient checkpointing
    "instances_small": ("instances_small", False),
    "finetune_instances": ("finetune_instances", False),
    "finetune_instances, checkpointing": ("finetune_instances", True),
}


def fullest(data: Path) -> DetectionSamples:
    """The training picture with the most objects, as a data set of one."""
    samples = open_dataset(data, task="detection").train
    assert isinstance(samples, DetectionSamples)
    trained = samples.trainable(masks=True)
    counts = [int(objects.trainable_mask().sum()) for objects in trained.objects]
    return trained.subset(np.array([int(np.argmax(counts))]))


def step(recipe: DetectionRecipe, samples: DetectionSamples, task: DetectionTask, net: torch.nn.Module) -> Row:
    """One training step of the picture, from its file; what it was."""
    optimizer = torch.optim.SGD(decay_groups(net, 1e-4), lr=1e-3, momentum=0.9)
    (batch,) = training_batches(task.dataset(samples), recipe.data, batch_size=1, seed=0, epoch=0)
    loss = task.loss(net, batch.images, batch.labels)
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    height, width = batch.labels[0].size
    return {"objects": len(batch.labels[0].boxes), "height": height, "width": width}


def run(case: str, data: Path, threads: int, *, small: bool) -> None:
    """In a process of its own: prints its row as JSON."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    name, checkpointing = CASES[case]
    samples = fullest(data)
    recipe = recipe_of(name, small=small)
    task = DetectionTask(recipe, samples)
    net = task.build()
    freeze(net.backbone, recipe.model.freeze)
    freeze_bn_statistics(net.backbone)
    if checkpointing:
        recompute_activations(net)
    seen: Row = {}
    figures = measured(lambda: seen.update(step(recipe, samples, task, net.train())))
    print(json.dumps({"what": case, **seen, **figures}))


def recipe_of(name: str, *, small: bool) -> DetectionRecipe:
    recipe = find_recipe(name)
    assert isinstance(recipe, DetectionRecipe)
    short, detector = SHORT, recipe.detector
    if small:
        short, detector = 64, replace(detector, fpn_channels=32, box_channels=32, mask_channels=32)
        recipe = replace(recipe, model=replace(recipe.model, name="resnest14"))
    detection = replace(recipe.detection, short=(short,), long=LONG)
    return replace(recipe, detector=detector, detection=detection, data=replace(recipe.data, workers=0))


def main() -> None:
    title, out = (__doc__ or "").splitlines()[0], Path("results/dense-memory.csv")
    parser = arguments(CASES, default=list(CASES), out=out, title=title)
    parser.add_argument("--data", type=Path, required=True, help="COCO json with masks")
    options = parser.parse_args()
    if options.case:
        return run(options.case, options.data, options.threads, small=options.smoke)
    notes = [f"picture: the fullest of {options.data.name}, short side {SHORT}, one a step"]
    lines = head(environment(threads=options.threads, packages=("torch", "torchvision"), notes=notes))
    return each_in_its_process(Path(__file__), options, lines, ["--data", str(options.data)])


if __name__ == "__main__":
    main()
