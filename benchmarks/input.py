"""From JPEG files to normalised batches of 224 x 224, one core: this package against torchvision's ImageFolder.

    python benchmarks/input.py --photos DIR         # writes results/input-cpu.csv, prints a table

The files are mosaics of the photographs in DIR, at 1.0 to 1.2 times their own scale, as JPEGs of quality 90 (4:2:0)
in a temporary folder. Both contenders read every file once a turn and draw crops by the same rule: `plain` is
RandomResizedCrop and flip, `paper` has AutoAugment before and colour noise after them. Theirs is ImageFolder, Pillow,
transforms v2 to a normalised tensor, and the default collation; ours `training_batches` and `normalise`. In every
round each takes one turn, in an order that moves on, in one process. A ratio is the median over rounds of their time /
ours, above 1 means faster here; times are CPU seconds of the process, since other work on the machine stretches the
wall time, which the file has too.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from PIL import Image, features
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from resnest.bench.table import environment, head
from resnest.classification.transforms import ClassificationDataset, Lighting
from resnest.data.loading import normalise, training_batches
from resnest.data.readers import read_folder
from resnest.data.samples import LabelledSamples
from resnest.data.settings import DataSettings
from resnest.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD

SIZE = 224
TILE = 320  # short side of the photographs
SETS = {(500, 375): 32, (1920, 1080): 32, (3264, 2448): 8, (4000, 3000): 8}  # width, height: number of files
# paper: section 4.1
RECIPES: dict[str, dict[str, Any]] = {"plain": {}, "paper": {"augment": "auto", "jitter": 0.4, "lighting": 0.1}}


@dataclass
class Turn:
    recipe: str
    pixels: tuple[int, int]
    contender: str
    run: Callable[[int], Iterator[Tensor]]  # of a round, yields batches
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)


def mosaic(photos: list[Image.Image], width: int, height: int, draw: random.Random) -> Image.Image:
    whole = Image.new("RGB", (width, height))
    rows = height // TILE
    side = -(-height // rows)
    for top in range(0, height, side):
        left = 0
        while left < width:
            photo = draw.choice(photos)
            scale = side / min(photo.size)  # what is higher than the row is covered by the next one
            tile = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BICUBIC)
            whole.paste(tile, (left, top))
            left += tile.width
    return whole


def write_files(photos: list[Image.Image], root: Path, pixels: tuple[int, int], count: int) -> str:
    draw, size = random.Random(0), 0
    for index in range(count):
        path = root / f"class{index % 2}" / f"{index:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        mosaic(photos, *pixels, draw).save(path, quality=90, subsampling="4:2:0")
        size += path.stat().st_size
    return f"{pixels[0]}x{pixels[1]}: {count} files, {size / count / 1024:.0f} KiB each on average"


def theirs(root: Path, recipe: str, batch: int) -> Callable[[int], Iterator[Tensor]]:
    before, after, noise = [], [], []
    if recipe == "paper":
        before = [v2.AutoAugment(interpolation=v2.InterpolationMode.BICUBIC)]
        after, noise = [v2.ColorJitter(0.4, 0.4, 0.4)], [Lighting(0.1)]
    crop = [v2.RandomResizedCrop(SIZE), v2.RandomHorizontalFlip()]
    tensor = [
        v2.PILToTensor(),
        *noise,
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ]
    images = ImageFolder(str(root), v2.Compose([*before, *crop, *after, *tensor]))

    def run(round_: int) -> Iterator[Tensor]:
        torch.manual_seed(round_)
        yield from (x for x, _ in DataLoader(images, batch, shuffle=True))

    return run


def ours(samples: LabelledSamples, recipe: str, batch: int) -> Callable[[int], Iterator[Tensor]]:
    settings = DataSettings(size=SIZE, workers=0, **RECIPES[recipe])
    dataset = ClassificationDataset(samples, settings, seed=0, epochs=1)

    def run(round_: int) -> Iterator[Tensor]:
        for read in training_batches(dataset, settings, batch_size=batch, seed=0, epoch=round_):
            yield normalise(read.images, settings.mean, settings.std)

    return run


def measure(turns: list[Turn], rounds: int, count: int) -> None:
    for number in range(-1, rounds):
        first = number % len(turns)
        for turn in turns[first:] + turns[:first]:
            cpu, wall = time.process_time(), time.perf_counter()
            seen = sum(len(batch) for batch in turn.run(number + 1))
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            assert seen == count
            if number >= 0:  # the first is to warm up
                turn.cpu.append(cpu / count)
                turn.wall.append(wall / count)


def write(turns: list[Turn], files: list[str], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        jpeg = features.version_feature("libjpeg_turbo")
        notes = [f"libjpeg-turbo: {jpeg}", f"seconds: per image, JPEG files to normalised {SIZE} px batches", *files]
        file.write(head(environment(threads=1, packages=("torch", "torchvision", "pillow"), notes=notes)))
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("recipe", "pixels", "contender", "repetition", "cpu_seconds", "wall_seconds"))
        for t in turns:
            case = (t.recipe, "x".join(map(str, t.pixels)), t.contender)
            times = zip(t.cpu, t.wall, strict=True)
            rows.writerows((*case, i, f"{cpu:.6f}", f"{wall:.6f}") for i, (cpu, wall) in enumerate(times))


def report(turns: list[Turn]) -> None:
    base = turns[0]
    for turn in turns:
        ratios = [a / b for a, b in zip(base.cpu, turn.cpu, strict=True)]
        low, _, high = quantiles(ratios, n=4)
        width, height = turn.pixels
        print(
            f"{turn.recipe:6} {width}x{height:<5} {turn.contender:12} {1 / median(turn.cpu):7.1f} images/s   "
            f"{median(ratios):.2f}x ({low:.2f} to {high:.2f})",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, default=Path("../shared/data/imagenet-sample-320/images"))
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--out", type=Path, default=Path("results/input-cpu.csv"))
    parser.add_argument("--smoke", action="store_true", default=os.environ.get("SMOKE") == "1")
    options = parser.parse_args()
    sets = dict(list(SETS.items())[: 1 if options.smoke else None])
    if options.smoke:  # the same path in seconds, into a temporary folder
        options.rounds = 2
        options.out = Path(tempfile.mkdtemp(prefix="resnest-smoke-")) / options.out.name
    torch.set_num_threads(1)
    photos = [Image.open(path).convert("RGB") for path in sorted(options.photos.iterdir())]
    done: list[Turn] = []
    files: list[str] = []
    for pixels, count in sets.items():
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            files.append(write_files(photos, root, pixels, count))
            samples = read_folder(root)
            for recipe in RECIPES:
                runs = {
                    "torchvision": theirs(root, recipe, min(count, 32)),
                    "resnest": ours(samples, recipe, min(count, 32)),
                }
                turns = [Turn(recipe, pixels, name, run) for name, run in runs.items()]
                measure(turns, options.rounds, count)
                report(turns)
                done += turns
                write(done, files, options.out)


if __name__ == "__main__":
    main()
