"""The doctor's look at a data set: every image is decoded, classes are counted, copies across parts are found.

report = check_dataset("flowers")
print(report.to_text())
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resnest.data.detection import DetectionSamples
from resnest.data.detection_checks import class_problems, object_notes, object_problems
from resnest.data.panoptic import PanopticSamples
from resnest.data.panoptic_checks import PanopticTally, panoptic_notes, panoptic_problems
from resnest.data.pixel_checks import PixelTally, Tally, pixel_notes, pixel_problems
from resnest.data.pixel_finding import look_for_pixels
from resnest.data.pixels import PixelSamples
from resnest.data.samples import Samples
from resnest.data.sources import Splits, open_dataset
from resnest.runtime.decode import BadImage

FEW = 10  # training images below which a class hardly learns
MOST_SHOWN = 20


@dataclass
class DatasetReport:
    """What was found; an empty `problems` means that training can start."""

    description: str
    counts: dict[str, tuple[int, int]]  # class -> training, validation images
    sizes: str = ""
    pixels: dict[str, tuple[float, float]] = field(default_factory=dict)  # class -> share of each part's masks
    problems: list[str] = field(default_factory=list)  # what will hurt
    notes: list[str] = field(default_factory=list)  # what to know

    def to_dict(self) -> dict[str, Any]:
        counts = {name: {"train": train, "val": val} for name, (train, val) in self.counts.items()}
        pixels = {name: {"train": train, "val": val} for name, (train, val) in self.pixels.items()}
        return {
            "data": self.description,
            "sizes": self.sizes,
            "classes": counts,
            **({"pixels": pixels} if pixels else {}),
            "problems": self.problems,
            "notes": self.notes,
        }

    def to_text(self) -> str:
        lines = [self.description, f"sizes: {self.sizes}"]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"problem: {problem}" for problem in self.problems[:MOST_SHOWN]]
        if len(self.problems) > MOST_SHOWN:
            lines.append(f"... and {len(self.problems) - MOST_SHOWN} more problems (--json lists them all)")
        return "\n".join([*lines, f"{len(self.problems)} problems" if self.problems else "no problems found"])


def check_dataset(
    where: str | Path,
    *,
    format: str = "auto",
    task: str | None = None,
    on_open: Callable[[int, str], None] = lambda total, title: None,
    on_image: Callable[[], None] = lambda: None,
) -> DatasetReport:
    """Read a whole data set, as `open_dataset` opens it. Raises ResnestError where it cannot even be opened."""
    splits = open_dataset(where, format=format, task=task)
    on_open(len(splits.train) + len(splits.val), "")
    train, val = splits.train.counts(), splits.val.counts()
    names = splits.train.class_names
    report = DatasetReport(splits.describe(), {name: (int(train[k]), int(val[k])) for k, name in enumerate(names)})
    sizes: list[tuple[int, int]] = []
    seen: dict[str, tuple[str, str, str]] = {}
    parts = {"train": splits.train, "val": splits.val}
    tallies = [tally for part, samples in parts.items() if (tally := _tally(part, samples))]
    looks = [tally.look for tally in tallies] or [samples.decode for samples in parts.values()]
    for (part, samples), look in zip(parts.items(), looks, strict=True):
        _read_part(part, samples, look, report, sizes, seen, on_image)
    report.sizes = _told_sizes(sizes)
    if tallies:
        _note_masks(tallies, report)
    elif isinstance(splits.train, DetectionSamples) and isinstance(splits.val, DetectionSamples):
        report.problems += class_problems(splits.train, splits.val)
        report.problems += object_problems("train", splits.train)
        report.problems += object_problems("val", splits.val)
        report.notes += object_notes(splits.train, splits.val)
    else:
        report.notes += _class_notes(splits, report.counts)
    if task is None and format == "auto" and not tallies:
        report.notes += _other_kinds(Path(where))
    return report


def _tally(part: str, samples: Samples) -> PixelTally | PanopticTally | None:
    if isinstance(samples, PanopticSamples):
        return PanopticTally(part, samples)
    return PixelTally(samples) if isinstance(samples, PixelSamples) else None


def _note_masks(tallies: Sequence[Tally], report: DatasetReport) -> None:
    """What the masks of both parts show."""
    train, val = tallies
    names = train.class_names
    report.counts = {name: (int(train.images[k]), int(val.images[k])) for k, name in enumerate(names)}
    shares = zip(train.shares().tolist(), val.shares().tolist(), strict=True)
    report.pixels = dict(zip(names, shares, strict=True))
    report.problems += pixel_problems(train, val)
    if isinstance(train, PanopticTally) and isinstance(val, PanopticTally):
        report.problems += [*panoptic_problems(train.samples), *train.problems, *val.problems]
        report.notes += panoptic_notes(train, val)
    else:
        report.notes += pixel_notes(train, val)


def _other_kinds(where: Path) -> Iterator[str]:
    """Masks beside what was looked at."""
    found = look_for_pixels(where) if where.is_dir() else None
    if found:
        task = "panoptic" if found.format == "panoptic" else "segmentation"
        yield f"there are masks too ({found.format}): --task {task} looks at them"


def _told_sizes(sizes: Sequence[tuple[int, int]]) -> str:
    if not sizes:
        return ""
    sides = np.array(sizes)
    low, high = sides.min(0), sides.max(0)
    return f"{low[0]} x {low[1]} to {high[0]} x {high[1]} pixels, median {int(np.median(sides.min(1)))} short side"


def _class_notes(splits: Splits, counts: dict[str, tuple[int, int]]) -> Iterator[str]:
    """What is known without looking into images."""
    for name, (count, held) in counts.items():
        if count < FEW:
            yield f"class {name!r} has {count} training images only"
        if held == 0:
            yield f"class {name!r} has no validation image"
    train = splits.train.counts()
    if train.max() > 10 * train.min():
        yield f"classes are uneven: {train.min()} to {train.max()} training images (see data.balance)"
    if splits.train.multi_label:
        marks = np.concatenate([splits.train.labels, splits.val.labels]).sum(1)  # (N,) labels of each image
        yield (
            f"several labels an image: {marks.mean():.1f} on average, {marks.max()} at most, none for"
            f" {(marks == 0).sum()} images"
        )


def _read_part(
    part: str,
    samples: Samples,
    look: Callable[[int], Image.Image],
    report: DatasetReport,
    sizes: list[tuple[int, int]],
    seen: dict[str, tuple[str, str, str]],  # pixels -> part, label, key of the first such image
    on_image: Callable[[], None],
) -> None:
    """Decode every image of one part; equal pixels under another label or in the other part are a problem."""
    for index, key in enumerate(samples.keys):
        on_image()
        try:
            image = look(index)
        except BadImage as error:
            report.problems.append(f"{part}: {key}: {error.reason}")
            continue
        sizes.append(image.size)
        mark = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
        label = "|".join(samples.names_of(index)) or "no label"
        before = seen.setdefault(mark, (part, label, key))
        if before[:2] != (part, label):
            report.problems.append(
                f"{part}: {key} ({label}) is the same picture as {before[0]}: {before[2]} ({before[1]})"
            )
