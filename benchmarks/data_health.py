"""Planted errors in a data set of photographs, and how many of them `resnest doctor` finds.

    python benchmarks/data_health.py --data imagenette128 --seeds 0 1            # trains a run for each fold and seed
    python benchmarks/data_health.py --data imagenette128 --model runs/a --images 1500 --part val --seeds 0 1 2

Planted, from a seed: labels of 5 % of the pictures are replaced by another class's, and 50 pictures are copied: resized
to 60 %, encoded anew at quality 30, or cropped by 5 % of both sides, in turn. Measured: the precision among the first
100 suspects (and of as many as there are flips, where these are fewer), recall of all flips; recall and precision of
copies. A pair of pictures that was not planted counts as false, although a data set may have copies of its own:
`--pairs DIR` writes pictures of those, to be looked at.

Without --model, `resnest train --folds` trains on the data with its flips, and each picture is judged by the run that
did not see it. With --model, by a linear probe on its features: then its training must not have seen the pictures with
their right labels, which --part val of the data that it was trained on grants.
"""

from __future__ import annotations

import argparse
import csv
import io
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resnest.data.checks import check_dataset
from resnest.data.samples import LabelledSamples
from resnest.data.sources import open_dataset
from resnest.health.findings import Review
from resnest.health.survey import Survey
from resnest.training.folds import train_folds

ROOT = Path(__file__).parents[1]
FLIPPED = 0.05  # of the labels
COPIES = 50
FIRST = 100  # suspects whose precision counts
FIELDS = (
    "label", "seed", "pictures", "way", "planted", "found", "right", "precision", "recall", "seconds",
)  # fmt: skip


def copy_of(image: Image.Image, way: int, rng: np.random.Generator) -> Image.Image:
    """A resized, newly encoded or cropped copy."""
    wide, high = image.size
    if way == 0:
        return image.resize((round(wide * 0.6), round(high * 0.6)), Image.Resampling.LANCZOS)
    if way == 1:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=30)
        return Image.open(buffer).convert("RGB")
    less = round(wide * 0.05), round(high * 0.05)
    left, top = (int(rng.integers(0, side + 1)) for side in less)
    return image.crop((left, top, left + wide - less[0], top + high - less[1]))


def plant(samples: LabelledSamples, folder: Path, seed: int) -> tuple[set[str], set[frozenset[str]]]:
    """Write the pictures with flips and copies as a folder of classes; returns names of both, of copies as pairs."""
    rng = np.random.default_rng(seed)
    count, classes = len(samples), len(samples.class_names)
    labels = samples.labels.copy()
    flipped = rng.permutation(count)[: round(FLIPPED * count)]
    labels[flipped] = (labels[flipped] + rng.integers(1, classes, len(flipped))) % classes
    names = [f"{samples.class_names[label]}/{number:05d}.png" for number, label in enumerate(labels.tolist())]
    for name in samples.class_names:
        (folder / name).mkdir(parents=True)
    copied = rng.permutation(np.setdiff1d(np.arange(count), flipped))[:COPIES]
    pairs = set()
    for number, name in enumerate(names):
        image = samples.decode(number)
        image.save(folder / name, compress_level=1)
        if number in copied:
            way = int(np.flatnonzero(copied == number)[0]) % 3
            again = f"{samples.class_names[labels[number]]}/copy{number:05d}.png"
            copy_of(image, way, rng).save(folder / again, compress_level=1)
            pairs.add(frozenset((name, again)))
    return {names[number] for number in flipped.tolist()}, pairs


def measure(review: Review, splits: Any, flips: set[str], pairs: set[frozenset[str]]) -> list[dict[str, Any]]:
    """Rows of both searches."""

    def name(place: Any) -> str:
        return str(getattr(splits, place.part).keys[place.index])

    suspects = [name(finding.place) for finding in review.of("label")]
    first = suspects[: min(FIRST, len(flips))]
    right = sum(suspect in flips for suspect in first)
    copies = {frozenset((name(f.place), name(f.other))) for kind in ("copy", "leak") for f in review.of(kind)}
    rows = [
        {"label": f"flips, first {len(first)}", "planted": len(flips), "found": len(first), "right": right,
         "precision": right / max(len(first), 1), "recall": right / len(flips)},
        {"label": "copies", "planted": len(pairs), "found": len(copies), "right": len(copies & pairs),
         "precision": len(copies & pairs) / max(len(copies), 1), "recall": len(copies & pairs) / len(pairs)},
    ]  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--part", choices=("train", "val"), default="train")
    parser.add_argument("--images", type=int, help="so many of them, chosen by the seed; by default all")
    parser.add_argument("--model", help="of which a linear probe is fitted; by default runs are trained by folds")
    parser.add_argument("--recipe", default="imagenette")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--csv", type=Path, default=ROOT / "results" / "data-health.csv")
    parser.add_argument("--pairs", type=Path, metavar="DIR", help="pictures of pairs that were not planted")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        started = time.perf_counter()
        samples: Any = getattr(open_dataset(options.data), options.part)
        if options.images:
            samples = samples.subset(np.sort(np.random.default_rng(seed).permutation(len(samples))[: options.images]))
        with tempfile.TemporaryDirectory() as folder:
            planted = Path(folder, "planted")
            flips, pairs = plant(samples, planted, seed)
            model = options.model
            if model is None:
                model = Path(folder, "folds")
                settings = {"train.epochs": options.epochs, "train.seed": seed}
                train_folds(options.recipe, data=planted, out=model, folds=options.folds, settings=settings)
            survey = Survey()
            report = check_dataset(planted, on_picture=survey.add)
            review = survey.review(report.splits, model=model)  # type: ignore[arg-type]
            way = f"probe of {Path(model).name}" if options.model else f"{options.folds} folds, {options.epochs} epochs"
            about = {"seed": seed, "pictures": len(samples), "way": way}
            about["seconds"] = round(time.perf_counter() - started)
            for row in measure(review, report.splits, flips, pairs):
                rows.append({**row, **about})
                print({key: round(value, 3) if isinstance(value, float) else value for key, value in rows[-1].items()})
            if options.pairs:
                _save_pairs(options.pairs, review, report.splits, pairs, seed)
    with options.csv.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {**row, "precision": f"{row['precision']:.4f}", "recall": f"{row['recall']:.4f}"} for row in rows
        )


def _save_pairs(folder: Path, review: Review, splits: Any, pairs: set[frozenset[str]], seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, finding in enumerate([*review.of("copy"), *review.of("leak")]):
        assert finding.other is not None
        both = [(getattr(splits, place.part), place.index) for place in (finding.place, finding.other)]
        if frozenset(part.keys[index] for part, index in both) not in pairs:
            images = [part.decode(index).resize((192, 192)) for part, index in both]
            shown = Image.new("RGB", (390, 192))
            shown.paste(images[0], (0, 0))
            shown.paste(images[1], (198, 0))
            shown.save(folder / f"seed{seed}-{number}-{finding.score:.4f}.png")


if __name__ == "__main__":
    main()
