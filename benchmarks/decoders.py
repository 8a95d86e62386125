"""Decoders on one backbone, and the same in segmentation_models_pytorch (smp) with a plain training loop.

    python benchmarks/decoders.py steps ../shared/data/camvid                      # results/decoders-steps.csv
    python benchmarks/decoders.py train ../shared/data/camvid unet --weights runs/a --epochs 40 --out runs/unet
    python benchmarks/decoders.py train ../shared/data/camvid smp-unet --weights runs/a --epochs 40
    python benchmarks/decoders.py train runs/nuclei-masks unet --binary --base 320 --weights runs/a --epochs 12

All have a ResNeSt-14 of half width, batches of 8 crops of 256 pixels that are drawn alike, and cross-entropy plus Dice;
`deeplabv3` is the recipe segment_small. smp's encoder is timm's of the same structure; its loop is what users write:
AdamW, cosine decay, batch norms in training mode, and smp's losses.

`steps` times training steps (forward, backward, optimiser), contenders in turn. `train` adds a line to
results/decoders.csv, with minutes of processor time, which other work on the machine hardly changes: 80 are 40 minutes
of two cores. All are evaluated after every epoch, and the best evaluation counts.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import resnest
from resnest.bench.table import PACKAGES, environment, head
from resnest.data.loading import normalise, training_batches
from resnest.data.sources import open_dataset
from resnest.inference.model import Model
from resnest.recipes.reading import find_recipe
from resnest.runtime.hardware import usable_cores
from resnest.segmentation.metrics import MaskMetrics, PixelMetrics
from resnest.segmentation.recipes.settings import SegmentationRecipe
from resnest.segmentation.recipes.small import HALF_WIDTH
from resnest.segmentation.spec import SegmenterSpec
from resnest.segmentation.task import SegmentationTask
from resnest.training.step import build_optimizers

STEPS, RESULTS = Path("results/decoders-steps.csv"), Path("results/decoders.csv")
COLUMNS = (
    "contender",
    "data",
    "epochs",
    "miou",
    "pixel_accuracy",
    "dice",
    "dice_of_last_class",
    "best_epoch",
    "processor_minutes",
)
WIDTHS = (128, 64, 32, 32, 16)
HEADS = {
    "unet": SegmenterSpec(head="unet", decoder_channels=WIDTHS),
    "unetplusplus": SegmenterSpec(head="unetplusplus", decoder_channels=WIDTHS),
    "fpn": SegmenterSpec(head="fpn", channels=128, segmentation_channels=64),
    "upernet": SegmenterSpec(head="upernet", channels=64),
}
# The same decoders, as smp calls them and their settings
OF_SMP: dict[str, tuple[str, dict[str, Any]]] = {
    "smp-unet": ("Unet", {"decoder_channels": WIDTHS}),
    "smp-unetplusplus": ("UnetPlusPlus", {"decoder_channels": WIDTHS}),
    "smp-fpn": ("FPN", {"decoder_pyramid_channels": 128, "decoder_segmentation_channels": 64}),
    "smp-upernet": ("UPerNet", {"decoder_channels": 64}),
}
CONTENDERS = ("deeplabv3", *HEADS, *OF_SMP)
RATE, DECAY = 1e-3, 0.01  # of smp's loop


def recipe_of(name: str, *, binary: bool = False, base: int | None = None) -> SegmentationRecipe:
    """The recipe of one of our decoders; smp's loop takes its data and its crops."""
    own = name.removeprefix("smp-")
    recipe = find_recipe("segment_small" if own == "deeplabv3" else "unet_binary" if binary else "unet_small")
    assert isinstance(recipe, SegmentationRecipe)
    if base:
        recipe = replace(recipe, segmentation=replace(recipe.segmentation, base=base))
    return recipe if own == "deeplabv3" else replace(recipe, segmenter=replace(HEADS[own], multi_label=binary))


def smp_network(name: str, num_classes: int, weights: Path | None) -> nn.Module:
    import segmentation_models_pytorch as smp  # type: ignore[import-untyped]

    kind, settings = OF_SMP[name]
    width = {"stem_width": HALF_WIDTH["stem_width"], "channels": HALF_WIDTH["planes"]}
    net: nn.Module = getattr(smp, kind)("tu-resnest14d", encoder_weights=None, classes=num_classes, **settings, **width)
    if weights:
        encoder = net.get_submodule("encoder.model")
        trained = Model.from_pretrained(weights).net.state_dict()
        state = {key: tensor for key, tensor in trained.items() if not key.startswith("fc.")}
        wrong = encoder.load_state_dict(state, strict=False)
        assert not wrong.missing_keys, wrong
        assert not wrong.unexpected_keys, wrong
    return net


def smp_loss(*, binary: bool) -> Callable[[Tensor, Tensor], Tensor]:
    import segmentation_models_pytorch as smp

    if binary:
        bce, dice = smp.losses.SoftBCEWithLogitsLoss(ignore_index=255), smp.losses.DiceLoss("binary", ignore_index=255)
        return lambda logits, labels: bce(logits, labels.float()) + dice(logits, labels)
    entropy, dice = nn.CrossEntropyLoss(ignore_index=255), smp.losses.DiceLoss("multiclass", ignore_index=255)
    return lambda logits, labels: entropy(logits, labels) + dice(logits, labels)


class PlainLoop:
    """smp's network, trained step by step."""

    def __init__(
        self, name: str, samples: Any, weights: Path | None, total: int = 0, recipe: SegmentationRecipe | None = None
    ) -> None:
        self.recipe = recipe or recipe_of(name)
        self.binary = self.recipe.segmenter.multi_label
        self.net = smp_network(name, len(samples.class_names), weights).train()
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=RATE, weight_decay=DECAY)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, total) if total else None
        self.loss = smp_loss(binary=self.binary)

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        data = self.recipe.data
        loss = self.loss(self.net(normalise(images, data.mean, data.std)), labels.long())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.schedule:
            self.schedule.step()

    @torch.inference_mode()
    def labels(self, pixels: NDArray[np.float32]) -> Any:
        """(3, H, W) normalised -> (H, W) classes or (K, H, W) masks; smp takes multiples of 32."""
        high, wide = pixels.shape[1:]
        image = torch.from_numpy(pixels)[None]
        image = nn.functional.pad(image, (0, -wide % 32, 0, -high % 32))
        logits = self.net(image)[0, :, :high, :wide]
        return (logits > 0).numpy() if self.binary else logits.argmax(0).byte().numpy()


class OurStep:
    """Our network and optimisers, step by step, as `resnest train` takes them."""

    def __init__(self, name: str, samples: Any) -> None:
        self.task = SegmentationTask(recipe_of(name), samples)
        self.net = self.task.build().train().to(memory_format=torch.channels_last)
        self.optimizers = build_optimizers(self.net, self.task.recipe.optim)

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        self.task.loss(self.net, images, labels).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.task.recipe.train.clip_norm or math.inf)
        assert math.isfinite(norm)
        for optimizer in self.optimizers:
            optimizer.step()
        self.net.zero_grad()


def batches(recipe: SegmentationRecipe, samples: Any, epoch: int) -> Iterator[Any]:
    dataset = SegmentationTask(recipe, samples).dataset(samples)
    return training_batches(dataset, recipe.data, batch_size=recipe.train.batch_size, seed=0, epoch=epoch)


def steps(options: argparse.Namespace) -> None:
    samples = open_dataset(options.data, task="segmentation").train
    runs = {
        name: PlainLoop(name, samples, None) if name in OF_SMP else OurStep(name, samples)
        for name in (options.only or CONTENDERS)
    }
    fixed = [(batch.images, batch.labels) for batch in islice(batches(recipe_of("unet"), samples, 0), 4)]
    for run in runs.values():
        run(*fixed[0])
    rows = []
    for index in range(options.rounds):
        turns = list(runs.items())
        for name, run in turns[index % len(turns) :] + turns[: index % len(turns)]:
            started = time.perf_counter()
            for images, labels in fixed:
                run(images, labels)
            rows.append((name, index, (time.perf_counter() - started) / len(fixed)))
    with STEPS.open("w", newline="") as file:
        file.write(
            head(environment(threads=torch.get_num_threads(), packages=(*PACKAGES, "segmentation_models_pytorch")))
        )
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("contender", "round", "seconds"))
        table.writerows((name, index, f"{seconds:.4f}") for name, index, seconds in rows)
    for name in runs:
        own = [seconds for row, _, seconds in rows if row == name]
        theirs = [seconds for row, _, seconds in rows if row == f"smp-{name}"]
        ratio = f", smp {median(b / a for a, b in zip(own, theirs, strict=True)):.2f}x" if theirs else ""
        print(f"{name}: {median(own):.3f} s a step{ratio}")


def plain_training(name: str, options: argparse.Namespace) -> dict[str, float]:
    """smp's loop: the best evaluation, as `resnest train` keeps it."""
    recipe = recipe_of(name, binary=options.binary, base=options.base)
    data: Any = open_dataset(options.data, task="segmentation", reading=recipe.reading)
    per_epoch = math.ceil(len(data.train) / recipe.train.batch_size)
    loop = PlainLoop(name, data.train, options.weights, per_epoch * options.epochs, recipe)
    preprocess, best = recipe.segmentation.preprocess(recipe.data), {"miou": -1.0}
    for epoch in range(options.epochs):
        loop.net.train()
        for batch in batches(recipe, data.train, epoch):
            loop(batch.images, batch.labels)
        loop.net.eval()
        metrics = (MaskMetrics if options.binary else PixelMetrics)(len(data.train.class_names))
        for index in range(len(data.val)):
            image, truth = data.val.pair(index)
            metrics.update(loop.labels(preprocess(image)), truth)
        figures = {**metrics.compute(), "epoch": epoch + 1, "last": last_dice(metrics.overlap)}
        print(f"epoch {epoch + 1}: mIoU {figures['miou']:.4f}", flush=True)
        best = max(best, figures, key=lambda one: one["miou"])
    return best


def last_dice(overlap: Any) -> float:
    right, predicted, true = overlap[-1]
    return float(2 * right / (predicted + true))


def our_training(name: str, options: argparse.Namespace) -> dict[str, float]:
    settings = [f"train.epochs={options.epochs}"]
    if options.weights:
        settings.append(f"model.pretrained={options.weights}")
    seen: list[tuple[float, int]] = []

    def note(step: int, figures: dict[str, float]) -> None:
        seen.append((figures["miou"], len(seen) + 1))

    done = resnest.train(
        recipe_of(name, binary=options.binary, base=options.base),
        data=options.data,
        out=options.out,
        settings=settings,
        quiet=False,
        overwrite=True,
        on_evaluation=note,
    )
    evaluation: Any = done.evaluation
    return {**done.figures, "last": float(evaluation.class_dice[-1]), "epoch": max(seen)[1]}


def train(options: argparse.Namespace) -> None:
    figures = (plain_training if options.contender in OF_SMP else our_training)(options.contender, options)
    new = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        if new:
            notes = ["start: weights of the classifier of docs/classify.md, imagenette at 128 pixels, 83.8 % top-1"]
            file.write(head(environment(packages=(*PACKAGES, "segmentation_models_pytorch"), notes=notes)))
        table = csv.writer(file, lineterminator="\n")
        if new:
            table.writerow(COLUMNS)
        shown = [f"{figures.get(key, math.nan):.4f}" for key in ("miou", "pixel_accuracy", "dice", "last")]
        minutes = sum(os.times()[:4]) / 60  # with those of worker processes
        table.writerow(
            (
                options.contender,
                options.data.name + " binary" * options.binary,
                options.epochs,
                *shown,
                figures["epoch"],
                f"{minutes:.1f}",
            )
        )
    print(f"{options.contender}: mIoU {figures['miou']:.4f}, Dice of the last class {figures['last']:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parts = parser.add_subparsers(required=True)
    timing = parts.add_parser("steps")
    timing.add_argument("data", type=Path)
    timing.add_argument("--only", type=lambda text: text.split(","))
    timing.add_argument("--rounds", type=int, default=7)
    timing.set_defaults(run=steps)
    training = parts.add_parser("train")
    training.add_argument("data", type=Path)
    training.add_argument("contender", choices=CONTENDERS)
    training.add_argument("--weights", type=Path, help="a classifier that was trained with the recipe imagenette")
    training.add_argument("--epochs", type=int, required=True)
    training.add_argument("--binary", action="store_true", help="a sigmoid a class, BCE plus Dice: recipe unet_binary")
    training.add_argument("--base", type=int, help="segmentation.base, for pictures of another scale")
    training.add_argument("--out", type=Path, help="of our run")
    training.set_defaults(run=train)
    options = parser.parse_args()
    torch.set_num_threads(usable_cores())
    options.run(options)


if __name__ == "__main__":
    main()
