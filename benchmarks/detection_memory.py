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

import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from peak_memory import arguments, each_in_its_process, measured
from resnest.bench.table import environment, head
from resnest.detection.detector import Detector, build_detector
from resnest.detection.object_masks import ObjectMasks
from resnest.detection.recipes import DetectionRecipe
from resnest.detection.rpn import Target
from resnest.network.recompute import recompute_activations
from resnest.network.regularize import decay_groups
from resnest.network.tools import freeze, freeze_bn_statistics
from resnest.recipes.reading import find_recipe
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


def build(images: int, *, small: bool) -> Detector:
    recipe = find_recipe(RECIPE)
    assert isinstance(recipe, DetectionRecipe)
    spec, detector = find_spec("resnest14" if small else recipe.model.name)[0], recipe.detector
    if small:
        detector = replace(detector, fpn_channels=32, box_channels=32, mask_channels=32, post_nms=(100, 100))
    net = build_detector(spec, detector, CLASSES)
    freeze(net.backbone, recipe.model.freeze)
    if images == 1:
        freeze_bn_statistics(net.backbone)
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
    return Target(boxes, torch.randint(CLASSES, (OBJECTS,), generator=generator), SIZE, ObjectMasks.of(masks))


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
    work = learn if "training" in case else predict
    height, width = SIZE
    told = {"what": case, "images": count, "height": height, "width": width, "checkpointing": int(checkpointing)}
    print(json.dumps({**told, **measured(lambda: work(net, images, torch.tensor([SIZE] * count)))}))


def main() -> None:
    title, out = (__doc__ or "").splitlines()[0], Path("results/detection-memory.csv")
    options = arguments(CASES, default=list(CASES)[:2], out=out, title=title).parse_args()
    if options.case:
        return run(options.case, options.threads, small=options.smoke)
    notes = [f"recipe: {RECIPE}{' with a small network' if options.smoke else ''}", f"objects: {OBJECTS} an image"]
    lines = head(environment(threads=options.threads, packages=("torch", "torchvision"), notes=notes))
    return each_in_its_process(Path(__file__), options, lines)


if __name__ == "__main__":
    main()
