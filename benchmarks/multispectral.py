"""A U-Net on pictures of four bands of 16 bits, from data to prediction, and whether the values arrive.

    python benchmarks/multispectral.py ../shared/data/camvid           # writes results/multispectral.csv
    python benchmarks/multispectral.py ../shared/data/camvid --smoke   # few pictures and steps, a temporary folder

The pictures are CamVid's as TIFF: red, green and blue times 257, and a computed band, the normalised difference of
green and red, from 0 to 65,535. It is a quotient, so that its values need more than 8 bits. Every stage is the command
that users have: `doctor --stats` computes mean and std, `train unet_small`, `export --format onnx`, `evaluate` of the
run and of its exported file, `predict`. Then each validation file, read by tifffile, is compared with what the network
is given, turned back into the file's units: the share of values above 255, and of those that are the file's. The last
column is this share for pictures cut to their upper 8 bits, as readers of photographs do.

Few pictures and steps: the mIoU shows that the chain learns, not what it could reach.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

import resnest
from resnest.bench.table import environment, head

FULL = 65535
PICTURES, STEPS = {"train": 48, "val": 12}, 40
SMOKE_PICTURES, SMOKE_STEPS, SMOKE_SIDE = {"train": 4, "val": 2}, 2, 96
ALWAYS = ("segmentation.backbone_norm=batch", "data.workers=0")
SMOKE = (
    "model.spec={planes: [8, 8, 8, 8], stem_width: 4}",
    "segmenter.decoder_channels=[8, 8, 8, 8, 8]",
    "segmentation.crop=64",
    "train.batch_size=2",
)
PACKAGES = ("torch", "onnxruntime", "numpy", "pillow", "tifffile")
HOW: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig", "compression": "zlib"}
Pixels = NDArray[np.uint16]


def four_bands(colours: NDArray[np.uint8]) -> Pixels:
    """Red, green, blue and their index, (H, W, 3) bytes -> (H, W, 4) of 16 bits."""
    red, green = colours[..., 0].astype(np.float64), colours[..., 1].astype(np.float64)
    index = (green - red) / np.maximum(green + red, 1)  # -1..1
    bands = colours.astype(np.uint16) * (FULL // 255)
    return np.concatenate([bands, np.rint((index + 1) / 2 * FULL).astype(np.uint16)[..., None]], axis=2)


def write_data(camvid: Path, out: Path, pictures: dict[str, int], side: int | None = None) -> Path:
    """So many pictures of each part with their masks and classes; `side`: their upper left corner alone."""
    for part, count in pictures.items():
        files = sorted((camvid / "images" / part).iterdir())
        for index in np.linspace(0, len(files) - 1, count).round().astype(int).tolist():
            image, mask = Image.open(files[index]), Image.open(camvid / "masks" / part / f"{files[index].stem}.png")
            box = (0, 0, side, side) if side else (0, 0, *image.size)
            picture, truth = (out / kind / part / files[index].stem for kind in ("images", "masks"))
            for path in (picture, truth):
                path.parent.mkdir(parents=True, exist_ok=True)
            bands = four_bands(np.asarray(image.crop(box).convert("RGB")))
            tifffile.imwrite(picture.with_suffix(".tif"), bands, **HOW)
            mask.crop(box).save(truth.with_suffix(".png"))
    (out / "classes.json").write_bytes((camvid / "classes.json").read_bytes())
    return out


def command(*words: object) -> str:
    """What a command of resnest prints; this script ends with its message if it fails."""
    done = subprocess.run([sys.executable, "-m", "resnest", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"resnest {' '.join(map(str, words))}: {done.stderr or done.stdout}")
    return done.stdout


def through_the_chain(
    data: Path, run: Path, settings: list[str], command: Callable[..., str] = command
) -> dict[str, Any]:
    """Statistics, training, export, evaluation and prediction by `command`; figures for the table."""
    values = json.loads(command("doctor", "--data", data, "--stats", "--json"))["values"]
    taken = {"in_chans": values["in_chans"], "mean": values["mean"], "std": values["std"]}
    of_data = [f"data.{name}={value}".replace(" ", "") for name, value in taken.items()]
    words = [word for setting in (*of_data, *settings) for word in ("--set", setting)]
    command("train", "unet_small", "--data", data, "--out", run, *words)
    exported = run / "model.onnx"
    command("export", run, "--format", "onnx", "--images", data / "images" / "val", "--out", exported)
    reports = [json.loads(command("evaluate", model, "--data", data, "--json")) for model in (run, exported)]
    found = command("predict", exported, *pictures_of(data), "--json").splitlines()
    return {
        "bands": values["in_chans"],
        **{name: f"{report['miou']:.4f}" for name, report in zip(("miou", "miou_onnx"), reports, strict=True)},
        "predicted": len(found),
    }


def pictures_of(data: Path) -> list[Path]:
    return sorted((data / "images" / "val").iterdir())


def arriving(run: Path, pictures: list[Path]) -> dict[str, Any]:
    """What the network is given of some files: how many values are above 255, and how many are the file's."""
    predict = resnest.Predictor(run, engine="torch", device="cpu")
    preprocess: Any = predict.card.preprocess
    mean, std = (np.array(values, np.float64)[:, None, None] for values in (preprocess.mean, preprocess.std))
    counts = np.zeros(4, np.int64)
    for path in pictures:
        file: Pixels = np.moveaxis(tifffile.imread(path), -1, 0)  # (C, H, W)
        tensor = predict.prepare(path, path.name).pixels[:, : file.shape[1], : file.shape[2]]  # without padding
        values = np.rint((tensor * std + mean) * preprocess.value_range)
        upper = (file >> 8) * 257  # as eight bits count to the same full value
        counts += [file.size, (values > 255).sum(), (values == file).sum(), (upper == file).sum()]
    shares = counts[1:] / counts[0]
    names = ("above_255", "exact", "exact_of_8_bits")
    return {"values": int(counts[0]), **{name: f"{share:.6f}" for name, share in zip(names, shares, strict=True)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("camvid", type=Path)
    parser.add_argument("--folder", type=Path, help="where the pictures and the run are kept; else they are not")
    parser.add_argument("--out", type=Path, default=Path("results/multispectral.csv"))
    parser.add_argument("--smoke", action="store_true", default=os.environ.get("SMOKE") == "1")
    options = parser.parse_args()
    pictures, steps = (SMOKE_PICTURES, SMOKE_STEPS) if options.smoke else (PICTURES, STEPS)
    with tempfile.TemporaryDirectory(prefix="resnest-multispectral-") as temporary:
        folder = options.folder or Path(temporary)
        data = write_data(options.camvid, folder / "data", pictures, SMOKE_SIDE if options.smoke else None)
        run = folder / "run"
        settings = [*ALWAYS, f"train.max_steps={steps}", *(SMOKE if options.smoke else ())]
        told = through_the_chain(data, run, settings)
        row = {**pictures, "steps": steps, **told, **arriving(run, pictures_of(data))}
    print(" | ".join(f"{name} {value}" for name, value in row.items()))
    if not options.smoke:
        with options.out.open("w", newline="") as file:
            notes = ["CamVid and the index of its green and red, seed 0"]
            file.write(head(environment(threads=torch.get_num_threads(), packages=PACKAGES, notes=notes)))
            table = csv.DictWriter(file, list(row), lineterminator="\n")
            table.writeheader()
            table.writerow(row)


if __name__ == "__main__":
    main()
