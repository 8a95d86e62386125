"""The paper's largest segmenter on a CPU, and what gradient checkpointing saves: peak memory and time.

    python benchmarks/segmentation_memory.py          # writes results/segmentation-memory.csv, prints a table
    python benchmarks/segmentation_memory.py --threads 1 --smoke    # a small network, into a temporary folder

Prediction: DeepLabV3 on ResNeSt-269 at output stride 8, 19 classes, of a picture of 2048 x 1024 pixels, in squares of
768 that overlap by a third (Cityscapes), by the engine that `resnest predict` takes. Training step: DeepLabV3 on
ResNeSt-101 at output stride 8 with its auxiliary head, 150 classes, four images of 480 x 480 (ADE20K): forward,
backward, and the optimiser's first step with momentum. Random weights, float32. Every case runs once in a process of
its own, whose peak resident memory (getrusage) is what stands in the table; `before` is what the process had before it,
network included.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from peak_memory import arguments, each_in_its_process, measured
from resnest.bench.table import environment, head
from resnest.inference.torch_engine import TorchEngine
from resnest.network.recompute import recompute_activations
from resnest.network.regularize import decay_groups
from resnest.segmentation.card import SegmentationPreprocess
from resnest.segmentation.predict import segment
from resnest.segmentation.result import PixelClasses
from resnest.segmentation.segmenter import Segmenter, build_segmenter
from resnest.segmentation.spec import SegmenterSpec
from resnest.segmentation.task import SegmentationTask
from resnest.spec import find_spec


class Case(NamedTuple):
    """What is measured."""

    network: str
    classes: int
    images: int
    size: tuple[int, int]  # height, width
    checkpointing: bool = False
    window: int | None = None  # of a prediction


CASES = {
    "prediction": Case("resnest269", 19, 1, (1024, 2048), window=768),
    "training step": Case("resnest101", 150, 4, (480, 480)),
    "training step, checkpointing": Case("resnest101", 150, 4, (480, 480), checkpointing=True),
    "training step, 2 images": Case("resnest101", 150, 2, (480, 480)),
    "training step, 2 images, checkpointing": Case("resnest101", 150, 2, (480, 480), checkpointing=True),
}


def build(case: Case) -> Segmenter:
    return build_segmenter(find_spec(case.network)[0], SegmenterSpec(), case.classes)


def small(case: Case) -> Case:
    """The same with a small network and small pictures."""
    height, width = case.size
    window = None if case.window is None else case.window // 4
    return case._replace(network="resnest14", size=(height // 4, width // 4), window=window)


def prediction(case: Case) -> Callable[[], None]:
    engine = TorchEngine(build(case), "cpu", task=SegmentationTask)
    height, width = case.size
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))
    classes = PixelClasses(tuple(map(str, range(case.classes))), tuple(range(case.classes)))

    def logits(images: NDArray[np.float32]) -> NDArray[np.float32]:
        return engine(images, np.array([images.shape[2:]] * len(images)))["logits"]

    def predict() -> None:
        found = segment(logits, image, SegmentationPreprocess(window=case.window), classes, "picture")
        assert found.labels.shape == case.size

    return predict


def training_step(case: Case) -> Callable[[], None]:
    net = build(case).train()
    net = net.to(memory_format=torch.channels_last)  # as the training loop
    if case.checkpointing:
        recompute_activations(net)
    optimizer = torch.optim.SGD(decay_groups(net, 1e-4), lr=1e-3, momentum=0.9)
    images = torch.randn(case.images, 3, *case.size)
    targets = torch.randint(case.classes, (case.images, *case.size)).to(torch.uint8)

    def learn() -> None:
        losses = net(images, targets)
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        optimizer.step()
        assert torch.isfinite(total)
        missing = [name for name, p in net.named_parameters() if p.grad is None]
        assert not missing, missing

    return learn


def run(name: str, threads: int, *, smoke: bool) -> None:
    """In a process of its own: prints its row as JSON."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    case = small(CASES[name]) if smoke else CASES[name]
    work = (prediction if case.window else training_step)(case)
    height, width = case.size
    told = {
        "what": name, "network": case.network, "classes": case.classes, "images": case.images, "height": height,
        "width": width, "window": case.window or "", "checkpointing": int(case.checkpointing),
    }  # fmt: skip
    print(json.dumps({**told, **measured(work)}))


def main() -> None:
    title, out = (__doc__ or "").splitlines()[0], Path("results/segmentation-memory.csv")
    options = arguments(CASES, default=list(CASES)[:3], out=out, title=title).parse_args()
    if options.case:
        return run(options.case, options.threads, smoke=options.smoke)
    notes = ["random weights, float32"] + ["a small network, small pictures"] * options.smoke
    lines = head(environment(threads=options.threads, packages=("torch", "numpy"), notes=notes))
    return each_in_its_process(Path(__file__), options, lines)


if __name__ == "__main__":
    main()
