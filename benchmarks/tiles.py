"""A picture of 12,000 x 9,000 pixels in tiles: peak memory and time of `resnest predict`.

    python benchmarks/tiles.py --photos ../shared/data/imagenet-sample-320/images     # writes results/tiles.csv
    python benchmarks/tiles.py --photos DIR --smoke                                   # a small picture, no results

The picture is a mosaic of photographs, as TIFF in tiles (deflate) and as JPEG. The models are those of the recipes
segment_small (11 classes) and detect_small (3 classes), with random weights: the detector finds as many objects as it
may in every tile, which is the most that can be joined. Each row is one run of the command, with a drawing, in a
process of its own, of which the kernel tells the most resident memory that it had (wait4).
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resnest.bench.table import environment, head
from resnest.runtime.tiles import Tiles

SIZE, SMALL = (12_000, 9_000), (1_500, 1_200)  # width, height
SIDE = 300  # of a photograph in the mosaic
TILE = 640
ENGINES = ("torch", "onnxruntime")
PACKAGES = ("torch", "onnxruntime", "numpy", "pillow", "tifffile")
MODELS = {"segmenter": ("segment_small", 11), "detector": ("detect_small", 3)}
FORMATS = {"tiff": "mosaic.tif", "jpeg": "mosaic.jpg"}
COLUMNS = ("model", "engine", "format", "width", "height", "tiles", "seconds", "cpu_seconds", "peak_mib")


def prepare(folder: Path, photos: Path, size: tuple[int, int]) -> None:
    """Write the pictures and the models; in a process of its own, whose memory is not that of the others."""
    write_mosaic(folder, sorted(photos.rglob("*.[jJ][pP]*[gG]")), size)
    for name, (recipe, classes) in MODELS.items():
        write_model(folder / name, recipe, classes)


def write_mosaic(folder: Path, photos: list[Path], size: tuple[int, int]) -> None:
    import tifffile

    whole = mosaic(photos, size)
    how: dict[str, Any] = {"tile": (256, 256), "compression": "zlib"}
    whole.save(folder / FORMATS["jpeg"], quality=90)
    tifffile.imwrite(folder / FORMATS["tiff"], np.asarray(whole), photometric="rgb", **how)


def mosaic(photos: list[Path], size: tuple[int, int]) -> Image.Image:
    draw, whole = random.Random(0), Image.new("RGB", size)
    for top, left in itertools.product(range(0, size[1], SIDE), range(0, size[0], SIDE)):
        with Image.open(draw.choice(photos)) as photo:
            whole.paste(photo.convert("RGB").resize((SIDE, SIDE)), (left, top))
    return whole


def write_model(folder: Path, recipe: str, classes: int) -> None:
    """A saved model, and its ONNX file."""
    import torch

    import resnest
    from resnest.detection.card import DetectionPreprocess
    from resnest.inference.model import Model
    from resnest.recipes.reading import find_recipe
    from resnest.segmentation.card import SegmentationPreprocess

    torch.manual_seed(0)
    of: Any = find_recipe(recipe)
    names = [f"class {number}" for number in range(classes)]
    net: Any
    preprocess: Any
    spec, _ = of.model.resolve()
    if recipe == "segment_small":
        net = resnest.create_segmenter(spec, of.segmenter, num_classes=classes)
        preprocess = SegmentationPreprocess()
    else:
        net = resnest.create_detector(spec, of.detector, num_classes=classes)
        preprocess = DetectionPreprocess(short=of.detection.eval_short, long=of.detection.eval_long)
    model = Model.of(net, names, preprocess)
    model.save_pretrained(folder)
    resnest.export(folder, format="onnx")


def measured(command: list[str]) -> dict[str, Any]:
    """Seconds, and the most memory that a command had resident."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    told = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}: {told}")
    kib = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return {
        "seconds": f"{time.perf_counter() - started:.1f}",
        "cpu_seconds": f"{usage.ru_utime + usage.ru_stime:.1f}",
        "peak_mib": round(kib / 1024),
    }


def commands(folder: Path) -> Iterator[tuple[tuple[str, str, str], list[str]]]:
    """The model, engine and format of each case, and what is run."""
    for model, engine, form in itertools.product(MODELS, ENGINES, FORMATS):
        reference = folder / model / ("model.onnx" if engine == "onnxruntime" else "")
        drawn = folder / f"{model}-{engine}-{form}"
        command = ["-m", "resnest", "predict", str(reference), str(folder / FORMATS[form]), "--engine", engine]
        yield (model, engine, form), [sys.executable, *command, "--tile", str(TILE), "--draw", str(drawn)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="a folder of JPEG photographs")
    parser.add_argument("--folder", type=Path, help="where pictures, models and drawings are kept; else they are not")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="cases with this in their name, such as torch")
    parser.add_argument("--out", type=Path, default=Path("results/tiles.csv"))
    parser.add_argument("--smoke", action="store_true", default=os.environ.get("SMOKE") == "1")
    parser.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)  # in a process of its own
    options = parser.parse_args()
    size = SMALL if options.smoke else SIZE
    if options.prepare:
        return prepare(options.folder, options.photos, size)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    if hasattr(os, "sched_setaffinity"):  # onnxruntime counts the cores that it may use
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    with tempfile.TemporaryDirectory(prefix="resnest-tiles-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        out = folder / options.out.name if options.smoke else options.out
        if not (folder / "detector" / "model.onnx").is_file():
            again = ["--prepare", "--folder", str(folder)] + ["--smoke"] * options.smoke
            subprocess.run([sys.executable, __file__, "--photos", str(options.photos), *again], check=True)
        tiles = len(Tiles(TILE).grid(*size))
        notes = ["random weights, float32"]
        with out.open("w", newline="") as file:
            file.write(head(environment(threads=options.threads, packages=PACKAGES, notes=notes)))
            table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            table.writeheader()
            for case, command in commands(folder):
                if options.only in " ".join(case):
                    row: dict[str, Any] = {
                        **dict(zip(COLUMNS, (*case, *size, tiles), strict=False)),
                        **measured(command),
                    }
                    table.writerow(row)
                    file.flush()
                    print(
                        f"| {' | '.join(case)} | {int(row['peak_mib']) / 1024:.2f} GiB | {row['seconds']} s |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
