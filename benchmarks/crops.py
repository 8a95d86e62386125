"""A training crop of a segmenter from a large TIFF picture: by its window, and from the whole picture.

    python benchmarks/crops.py --photos ../shared/data/imagenet-sample-320/images     # writes results/crops.csv
    python benchmarks/crops.py --photos DIR --smoke                                   # a small picture, no results

The picture is a mosaic of 6,000 x 4,500 pixels in tiles of 256 (deflate), its mask TIFF or PNG. Both ways make the same
crops of 480 pixels, which is checked, in turns in one process.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from PIL import Image

from resnest.bench.table import environment, head
from resnest.data.settings import DataSettings
from resnest.data.sources import open_dataset
from resnest.segmentation.data import PixelSamples
from resnest.segmentation.recipes.settings import SegmentationSettings
from resnest.segmentation.transforms import SegmentationDataset
from tiles import mosaic

SIZE, SMALL = (6_000, 4_500), (2_000, 1_500)  # width, height
COLUMNS = ("mask", "way", "width", "height", "repetition", "seconds")


def write_data(root: Path, photos: list[Path], size: tuple[int, int], mask: str) -> PixelSamples:
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    (root / "classes.txt").write_text("a\nb\nc\n")
    rows, columns = np.ogrid[: size[1], : size[0]]
    labels = ((rows // 300 + columns // 300) % 3).astype(np.uint8)
    how: dict[str, Any] = {"tile": (256, 256), "compression": "zlib"}
    for name in ("0", "1"):
        tifffile.imwrite(root / "images" / f"{name}.tif", np.asarray(mosaic(photos, size)), photometric="rgb", **how)
        if mask == "tiff":
            tifffile.imwrite(root / "masks" / f"{name}.tif", labels, photometric="minisblack", **how)
        else:
            Image.fromarray(labels).save(root / "masks" / f"{name}.png")
    samples = open_dataset(root, task="segmentation").train
    assert isinstance(samples, PixelSamples)
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="a folder of JPEG photographs")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("results/crops.csv"))
    parser.add_argument("--smoke", action="store_true", default=os.environ.get("SMOKE") == "1")
    options = parser.parse_args()
    torch.set_num_threads(1)
    photos, size = sorted(options.photos.rglob("*.[jJ][pP]*[gG]")), SMALL if options.smoke else SIZE
    rows = []
    with tempfile.TemporaryDirectory(prefix="resnest-crops-") as folder:
        for mask in ("tiff", "png"):
            samples = write_data(Path(folder) / mask, photos, size, mask)
            data, settings = DataSettings(jitter=0.2), SegmentationSettings(base=max(size), scale=(0.5, 2.0))
            dataset = SegmentationDataset(samples, data, settings, seed=0)
            ways: dict[str, Callable[[], tuple[torch.Tensor, torch.Tensor]]] = {
                "window": lambda dataset=dataset: dataset.augment(0, 0),  # type: ignore[misc]
                "whole": lambda dataset=dataset, samples=samples: dataset.transform(*samples.pair(0)),  # type: ignore[misc]
            }
            for repetition in range(2 if options.smoke else options.rounds):
                crops = []
                for way, make in ways.items():
                    torch.manual_seed(repetition)
                    started = time.perf_counter()
                    crops.append(make())
                    rows.append((mask, way, *size, repetition, f"{time.perf_counter() - started:.4f}"))
                assert all(torch.equal(one, other) for one, other in zip(*crops, strict=True))
            for way in ways:
                seconds = statistics.median(float(row[-1]) for row in rows if row[:2] == (mask, way))
                print(f"| {mask} | {way} | {1000 * seconds:.0f} ms |", flush=True)
    out = Path(tempfile.mkdtemp(prefix="resnest-crops-")) / options.out.name if options.smoke else options.out
    with out.open("w", newline="") as file:
        file.write(head(environment(threads=1, packages=("torch", "numpy", "pillow", "tifffile"))))
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(rows)


if __name__ == "__main__":
    main()
