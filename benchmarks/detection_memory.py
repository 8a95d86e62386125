"""The paper's largest detector at its full size on a CPU: peak memory and time of a prediction and of a training step.

    python benchmarks/detection_memory.py             # writes results/detection-memory.csv, prints a table
    python benchmarks/detection_memory.py --threads 1 --smoke       # a small network, into a temporary folder

Cascade Mask R-CNN, ResNeSt-200 with deformable convolution, settings of its recipe, one image of 800 x 1333 pixels
(padded to 800 x 1344), random weights, float32. Every case runs once in a process of its own, whose peak resident
memory (getrusage) is what stands in the table; `before` is what the process had before it, network included.

A training step is forward, backward with gradient checkpointing, and the optimiser's first step with momentum. Its
image has 100 objects with masks, more than any of COCO's, so that the heads get all the proposals that they may. With
one image the backbone keeps its statistics (detection.backbone_norm=frozen), as docs/detection.md advises for one
device with little memory; `--cases "training step, 2 images"` is the published setting.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from resnest.bench.environment import environment, head
from resnest.data.targets import Target
from resnest.detection.detector import Detector, build_detector
from resnest.network.recompute import recompute_activations
from resnest.network.regularize import decay_groups
from resnest.network.stages import freeze, hold_statistics
from resnest.recipes.catalogue import find_recipe
from resnest.spec import find_spec

RECIPE = "cascade_mask_rcnn_resnest200_dcn_tricks_3x"
SIZE, PADDED = (800, 1333), (800, 1344)  # height, width
OBJECTS = 100  # of COCO's training images, the fullest has 93
CLASSES = 80
CASES = {  # images, gradient checkpointing
    "prediction": (1, False),
    "training step, 1 image": (1, True),
    "training step, 2 images": (2, True),
    "training step, 1 image, all kept": (1, False),
}
HEADER = ("what", "images", "height", "width", "checkpointing", "seconds", "cpu_seconds", "before_mib", "peak_mib")


def build(images: int, *, small: bool) -> Detector:
    recipe = find_recipe(RECIPE)
    assert recipe.detector is not None
    spec, detector = find_spec("resnest14" if small else recipe.model.name)[0], recipe.detector
    if small:
        detector = replace(detector, fpn_channels=32, box_channels=32, mask_channels=32, post_nms=(100, 100))
    net = build_detector(spec, detector, CLASSES)
    freeze(net.backbone, recipe.model.freeze)  # type: ignore[arg-type]
    if images == 1:
        hold_statistics(net.backbone)
    return net


def target(seed: int) -> Target:
    """Objects of 16 to 400 pixels anywhere, their masks ellipses."""
    generator = torch.Generator().manual_seed(seed)
    height, width = SIZE
    sides = torch.exp(torch.empty(OBJECTS, 2).uniform_(2.8, 6.0, generator=generator))
    corners = torch.rand(OBJECTS, 2, generator=generator) * (torch.tensor([width, height]) - sides)
    boxes = torch.cat([corners, corners + sides], 1)
    masks = torch.zeros(OBJECTS, height, width, dtype=torch.bool)
    y, x = torch.arange(height)[:, None], torch.arange(width)[None]
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.tolist(), strict=True):
        mask |= ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 <= 1
    return Target(boxes, torch.randint(CLASSES, (OBJECTS,), generator=generator), SIZE, masks)


def predict(net: Detector, images: Tensor, sizes: Tensor) -> None:
    with torch.inference_mode():
        found = net.eval()(images, sizes)
    assert found.masks is not None


def learn(net: Detector, images: Tensor, sizes: Tensor) -> None:
    optimizer = torch.optim.SGD(decay_groups(net, 1e-4), lr=1e-3, momentum=0.9)
    losses = net.train()(images, sizes, [target(seed) for seed in range(len(images))])
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    optimizer.step()
    assert torch.isfinite(total)
    missing = [name for name, p in net.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing, missing


def peak() -> float:
    """MiB; Linux counts in KiB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def run(case: str, threads: int, *, small: bool) -> None:
    """In a process of its own: prints its row as JSON."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    count, checkpointing = CASES[case]
    net = build(count if "training" in case else 2, small=small)
    if checkpointing:
        recompute_activations(net)
    images = torch.zeros(count, 3, *PADDED)
    images[..., : SIZE[1]].normal_()
    before, wall, cpu = peak(), time.perf_counter(), time.process_time()
    (learn if "training" in case else predict)(net, images, torch.tensor([SIZE] * count))
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    row = (case, count, *SIZE, int(checkpointing), f"{seconds:.1f}", f"{cpu_seconds:.1f}", round(before), round(peak()))
    print(json.dumps(dict(zip(HEADER, row, strict=True))))


def summary(row: dict[str, object]) -> str:
    return f"| {row['what']} | {float(str(row['peak_mib'])) / 1024:.1f} GiB | {float(str(row['seconds'])):.0f} s |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES)[:2])
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)  # in a process of its own
    parser.add_argument("--out", type=Path, default=Path("results/detection-memory.csv"))
    parser.add_argument("--smoke", action="store_true", default=os.environ.get("SMOKE") == "1")
    options = parser.parse_args()
    if options.case:
        return run(options.case, options.threads, small=options.smoke)
    if options.smoke:
        options.out = Path(tempfile.mkdtemp(prefix="resnest-memory-")) / options.out.name
    notes = [f"recipe: {RECIPE}{' with a small network' if options.smoke else ''}", f"objects: {OBJECTS} an image"]
    lines = head(environment(threads=options.threads, packages=("torch", "torchvision"), notes=notes))
    rows, unfinished = [], []
    for case in options.cases:
        command = [sys.executable, __file__, "--case", case, "--threads", str(options.threads)]
        done = subprocess.run(command + ["--smoke"] * options.smoke, stdout=subprocess.PIPE, text=True)
        if done.returncode:  # what was measured stays, should memory not do for this one
            unfinished.append(f"{case} (ended with {done.returncode})")
            print(f"not finished: {unfinished[-1]}", flush=True)
            continue
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(summary(rows[-1]), flush=True)
        with options.out.open("w", newline="") as file:
            file.write(lines)
            table = csv.DictWriter(file, HEADER, lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
    print(options.out)
    if unfinished:
        sys.exit(f"not finished: {', '.join(unfinished)}")


if __name__ == "__main__":
    main()
