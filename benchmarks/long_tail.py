"""A real long tail made from blood cells: what repeat-factor sampling and Seesaw loss do for its rare class.

    python benchmarks/long_tail.py --data ../shared/data/bccd --start runs/a       # results/long-tail*.csv
    python benchmarks/long_tail.py --data DIR --start RUN --smoke              # the same path in minutes
    python benchmarks/long_tail.py --data DIR --start RUN --arms "seesaw, sampled" softmax

Of BCCD's training pictures all keep their red cells (frequent), 40 their white cells (common), 10 their platelets
(rare), chosen by the seed. The other white cells and platelets are painted over with the background, so that no picture
shows what its annotations lack. The validation part stays as it is.

Every detector of a seed has the same pictures, in the same order unless it is sampled, starts from the same classifier,
with the same random weights of pyramid and proposals, and takes as many steps: differences are taken seed by seed. The
box head of Seesaw starts from other random weights, as its last layer has another shape. What counts is the AP after
the last epoch: runs are in long-tail.csv, means and differences with Student's 95 % intervals in long-tail-summary.csv.
It goes on where it was stopped. An epoch takes two thirds of a minute of one core (results/bccd.csv): three detectors,
five seeds and five epochs take about 55.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import shutil
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from scipy import stats

from resnest.bench.table import environment, head
from resnest.training.run import RunDirectory
from resnest.training.train import resume, train

KEPT = {"WBC": 40, "Platelets": 10}  # training pictures that keep their objects of these classes
GROUPS = {"RBC": "f", "WBC": "c", "Platelets": "r"}
COVERED = 0.5  # share of another object's box within what is painted over, from which on it goes too
LARGER, BLUR = 0.06, 2  # share of a side by which what is painted over exceeds it; pixels
BASELINE = "softmax"
SAMPLING = "data.repeat_threshold=0.3"  # a class in 10 of 195 pictures comes 2.4 times as often
SEESAW = ["detector.class_loss=seesaw", "detector.normed_classifier=true"]
ARMS: dict[str, list[str]] = {
    BASELINE: [],
    "softmax, sampled": [SAMPLING],
    "seesaw": SEESAW,
    "seesaw, sampled": [*SEESAW, SAMPLING],
}
USUAL_ARMS = (BASELINE, "softmax, sampled", "seesaw")
FIGURES = ("box_ap", "box_apr", "box_apc", "box_apf")
Rows = list[dict[str, Any]]


# --- the data ---


def make_tail(source: Path, out: Path, seed: int) -> None:
    """BCCD in LVIS's form, with a long tail in its training part."""
    rng = np.random.default_rng(seed)
    (out / "annotations").mkdir(parents=True)
    for part in ("train", "val"):
        content = json.loads((source / "annotations" / f"instances_{part}.json").read_text(encoding="utf-8"))
        content["images"] = [image for image in content["images"] if not image.get("suspect_incomplete")]
        used = {image["id"] for image in content["images"]}
        content["annotations"] = [one for one in content["annotations"] if one["image_id"] in used]
        names = {category["id"]: category["name"] for category in content["categories"]}
        for category in content["categories"]:
            category["frequency"] = GROUPS[category["name"]]
        gone = dropped(content, names, rng) if part == "train" else set()
        own: dict[int, Rows] = {image["id"]: [] for image in content["images"]}
        for annotation in content["annotations"]:
            own[annotation["image_id"]].append(annotation)
        kept: Rows = []
        for image in content["images"]:
            away = [one["bbox"] for one in own[image["id"]] if one["id"] in gone]
            left = [one for one in own[image["id"]] if one["id"] not in gone and not is_covered(one["bbox"], away)]
            original = source / "images" / image["file_name"]
            file = out / "images" / part / original.name
            file.parent.mkdir(parents=True, exist_ok=True)
            if away:
                painted_over(Image.open(original).convert("RGB"), away).save(file, quality=95)
            else:
                shutil.copyfile(original, file)
            image["file_name"] = file.relative_to(out / "images").as_posix()
            shown = {one["category_id"] for one in left}
            image |= {"neg_category_ids": sorted(names.keys() - shown), "not_exhaustive_category_ids": []}
            kept += left
        content["annotations"] = kept
        (out / "annotations" / f"instances_{part}.json").write_text(json.dumps(content), encoding="utf-8")


def dropped(content: dict[str, Any], names: dict[int, str], rng: np.random.Generator) -> set[int]:
    """The annotations of the classes in `KEPT` in all but some pictures."""
    gone: set[int] = set()
    for name, most in KEPT.items():
        mine = [one for one in content["annotations"] if names[one["category_id"]] == name]
        pictures = np.unique([one["image_id"] for one in mine])
        stay = {*rng.permutation(pictures)[:most].tolist()}
        gone |= {one["id"] for one in mine if one["image_id"] not in stay}
    return gone


def painted_over(picture: Image.Image, boxes: list[list[float]]) -> Image.Image:
    """The picture with the cells in these boxes in the colour of the background, with soft borders."""
    pixels = np.asarray(picture).reshape(-1, 3)
    bright = pixels[pixels.sum(1) >= np.percentile(pixels.sum(1), 60)]
    mask = Image.new("L", picture.size)
    pen = ImageDraw.Draw(mask)
    for x, y, width, height in boxes:
        across, down = LARGER * width, LARGER * height  # an ellipse within a box leaves the corners of a square cell
        pen.ellipse((x - across, y - down, x + width + across, y + height + down), fill=255)
    fill = Image.new("RGB", picture.size, tuple(np.median(bright, axis=0).astype(int).tolist()))
    return Image.composite(fill, picture, mask.filter(ImageFilter.GaussianBlur(BLUR)))


def is_covered(box: list[float], away: list[list[float]]) -> bool:
    x, y, width, height = box
    for left, top, wide, high in away:
        shared = max(0, min(x + width, left + wide) - max(x, left)) * max(0, min(y + height, top + high) - max(y, top))
        if shared > COVERED * width * height:
            return True
    return False


# --- the runs ---


def settings_of(arm: str, seed: int, options: argparse.Namespace) -> list[str]:
    return [
        f"train.seed={seed}",
        f"train.epochs={options.epochs}",
        f"model.pretrained={options.start}",
        "detector.max_detections=300",
        "detector.score_threshold=0.0001",
        *ARMS[arm],
        *(["train.max_steps=4", "detection.short=[96]", "detection.eval_short=96"] if options.smoke else []),
    ]


def train_one(arm: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train, or go on, or do nothing if the run is finished; its figures after the last epoch."""
    data = options.runs / f"tail-{seed}"
    if not (data / "annotations" / "instances_val.json").is_file():  # written last
        make_tail(options.data, data, seed)
    run = RunDirectory(options.runs / f"{arm.replace(', ', '-')}-seed{seed}")
    if not (run.path / "report.html").is_file():  # written last
        if any(run.checkpoints.glob("*.pt")):
            resume(run.path, data=data, quiet=False)
        else:
            told = settings_of(arm, seed, options)
            train("detect_small", data=data, out=run.path, settings=told, overwrite=True, quiet=False)
    last = [line for line in run.read_lines(run.metrics) if line["kind"] == "eval"][-1]
    return {"detector": arm, "seed": seed, "epochs": last["epoch"], **{key: last[key] for key in FIGURES}}


def summary(rows: Rows) -> Rows:
    """Percent: means over the seeds, and the differences to softmax over paired seeds with Student's 95 % interval."""
    found = {(row["detector"], row["seed"], key): 100 * float(row[key]) for row in rows for key in FIGURES}
    table = []
    for arm in dict.fromkeys(row["detector"] for row in rows):
        seeds = [row["seed"] for row in rows if row["detector"] == arm]
        for key in FIGURES:
            line = {"detector": arm, "figure": key, "seeds": len(seeds)}
            line["mean"] = f"{statistics.mean(found[arm, seed, key] for seed in seeds):.2f}"
            pairs = [found[arm, s, key] - found[BASELINE, s, key] for s in seeds if (BASELINE, s, key) in found]
            known = arm != BASELINE and len(pairs) > 1
            values = interval(pairs) if known else ("", "", "")
            table.append(line | dict(zip(("difference", "low", "high"), values, strict=True)))
    return table


def interval(pairs: list[float]) -> tuple[str, str, str]:
    """The mean, and the ends of its interval."""
    mean = statistics.mean(pairs)
    half = float(stats.t.ppf(0.975, len(pairs) - 1)) * statistics.stdev(pairs) / math.sqrt(len(pairs))
    return f"{mean:+.2f}", f"{mean - half:+.2f}", f"{mean + half:+.2f}"


def write(path: Path, rows: Rows, note: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(head(environment(threads=torch.get_num_threads(), notes=[note])))
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of bccd")
    parser.add_argument("--start", default="null", help="run of a classifier, such as of `resnest train imagenette`")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=USUAL_ARMS)
    parser.add_argument("--runs", type=Path, default=Path("runs/long-tail"))
    parser.add_argument("--results", type=Path, default=Path("results/long-tail.csv"))
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    if options.smoke:
        options.seeds, options.runs = min(options.seeds, 2), options.runs / "smoke"
        options.results = options.runs / options.results.name
    rows: Rows = []
    for seed in range(options.seeds):  # seed by seed, so that what is there at any time is balanced
        for arm in options.arms:
            rows.append(train_one(arm, seed, options))
            write(options.results, rows, "figures: AP after the last epoch")
    table = summary(rows)
    write(options.results.with_stem(f"{options.results.stem}-summary"), table, "figures: percent, paired by seed")
    for row in table:
        print(", ".join(f"{name} {value}" for name, value in row.items() if value != ""))


if __name__ == "__main__":
    main()
