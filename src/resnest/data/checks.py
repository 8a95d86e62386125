"""Data set checks of `resnest doctor`: decodes every image, counts classes, finds duplicates across splits.

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

from resnest.data.formats import finders
from resnest.data.near_duplicates import Pair, Prints, find_pairs
from resnest.data.samples import LabelledSamples
from resnest.data.sources import Splits, open_dataset
from resnest.data.statistics import Meter, needs_look, usual_bands
from resnest.errors import parameter
from resnest.figures import counted
from resnest.runtime.bands import RGB, Bands, orientation_of
from resnest.runtime.decode import BadImage
from resnest.runtime.raster import Raster
from resnest.runtime.shown import shown
from resnest.tasks import TaskInfo, load_object, task_info

MIN_IMAGES = 10  # training images below which a class is hardly learned
MOST_SHOWN = 20
MOST_ALONE = 10  # classes with a note of their own; more have one together


@dataclass
class DatasetReport:
    """Findings of a data set check; an empty `problems` means that training can start."""

    description: str
    counts: dict[str, tuple[int, int]]  # class -> training, validation images
    sizes: str = ""
    pixels: dict[str, tuple[float, float]] = field(default_factory=dict)  # class -> fraction of each split's masks
    problems: list[str] = field(default_factory=list)  # what will hurt
    notes: list[str] = field(default_factory=list)  # what to know
    near: list[Pair] = field(default_factory=list)  # validation images that look like a training image
    meter: Meter | None = None  # of the values of the training pictures
    splits: Splits | None = None  # what was checked

    def to_dict(self) -> dict[str, Any]:
        counts = {name: {"train": train, "val": val} for name, (train, val) in self.counts.items()}
        pixels = {name: {"train": train, "val": val} for name, (train, val) in self.pixels.items()}
        return {
            "data": self.description,
            "sizes": self.sizes,
            "classes": counts,
            "near_duplicates": self._near_pairs(),
            **({"pixels": pixels} if pixels else {}),
            **({"values": self.meter.to_dict()} if self.meter and self.meter.count else {}),
            "problems": self.problems,
            "notes": self.notes,
        }

    def _near_pairs(self) -> list[dict[str, Any]]:
        if self.splits is None:
            return []
        train, val = self.splits.train.keys, self.splits.val.keys
        return [
            {"train": train[pair.train], "val": val[pair.val], "likeness": round(pair.likeness, 4)}
            for pair in self.near
        ]

    def to_text(self, rest: str = "") -> str:
        lines = [self.description, f"sizes: {self.sizes}"]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"problem: {problem}" for problem in self.problems[:MOST_SHOWN]]
        if len(self.problems) > MOST_SHOWN:
            lines.append(f"... and {len(self.problems) - MOST_SHOWN} more problems{rest}")
        ends = {0: "no problems found", 1: "1 problem"}
        return "\n".join([*lines, ends.get(len(self.problems), f"{len(self.problems)} problems")])


class Inspection:
    """Checks of one split; the base class of each task's own checks."""

    def __init__(self, split: str, samples: Any) -> None:
        self.split, self.samples = split, samples
        self.prints = Prints()
        self.repeated: set[int] = set()  # images that are the same as one before, by their pixels
        self.orientations = (0, 0)  # images with an EXIF orientation that are read upright, and as stored

    def check_image(self, index: int) -> Image.Image:
        """Image `index`, whose annotations are counted. Raises BadImage."""
        image: Image.Image = self.samples.decode(index)
        return image

    def count_orientation(self, index: int, image: Image.Image) -> None:
        """Count image `index`, as it was decoded. Raises BadImage."""
        orientation, size = orientation_of(self.samples.read(index))
        if orientation != 1:
            stored = self.samples.is_read_as_stored(image.size, size)
            self.orientations = (self.orientations[0] + (not stored), self.orientations[1] + stored)

    def add_to(self, report: DatasetReport, val: Any) -> None:
        """Adds the findings of the training split, and of the validation split's inspection."""


class LabelInspection(Inspection):
    """Checks of labelled images."""

    samples: LabelledSamples

    def add_to(self, report: DatasetReport, val: LabelInspection) -> None:
        report.notes += _class_notes(self.samples, val.samples, report.counts)


def check_dataset(
    where: str | Path,
    *,
    format: str = "auto",
    task: str | None = None,
    reading: str = "",
    group: str | None = None,
    exif: str = "auto",
    bands: Bands | None = None,
    stats: bool = False,
    on_open: Callable[[int, str], None] = lambda total, title: None,
    on_image: Callable[[], None] = lambda: None,
    on_picture: Callable[[str, int, Image.Image], None] | None = None,
) -> DatasetReport:
    """Check a complete data set, as `open_dataset` opens it.

    Args:
        bands: how pictures are read; None: as RGB if they can be, else with as many channels as most of them have.
        stats: with mean and std of the training pictures.
        on_picture: gets every picture that can be decoded, as it is shown, with its part and number.

    Raises:
        ResnestError: it cannot be opened.
    """
    how: dict[str, Any] = {"format": format, "task": task, "reading": reading, "group": group, "exif": exif}
    splits = open_dataset(where, **how, bands=bands or RGB)
    if bands is None and (found := usual_bands(splits.train)) != RGB:
        splits = open_dataset(where, **how, bands=found)
    on_open(len(splits.train) + len(splits.val), "")
    train, val = splits.train.counts(), splits.val.counts()
    names = splits.train.class_names
    report = DatasetReport(splits.describe(), {name: (int(train[k]), int(val[k])) for k, name in enumerate(names)})
    report.splits = splits
    meter = report.meter = Meter(splits.train.bands) if stats or needs_look(splits.train) else None
    sizes: list[tuple[int, int]] = []
    seen: dict[str, tuple[str, str, str]] = {}
    info = task_info(splits.train.task)
    inspect = load_object(info.inspection)
    inspections = [inspect(split, samples) for split, samples in (("train", splits.train), ("val", splits.val))]
    for inspection in inspections:
        own = meter if inspection.split == "train" else None
        _check_split(inspection, report, sizes, seen, on_image, own, on_picture)
    report.notes += _value_notes(meter, stats)
    report.sizes = _describe_sizes(sizes)
    report.notes += _exif_notes([inspection.orientations for inspection in inspections], exif, info)
    inspections[0].add_to(report, inspections[1])
    _add_near_duplicates(report, inspections[0], inspections[1], group)
    if task is None and format == "auto" and info.reads_labels:
        report.notes += _other_annotations(Path(where))
    return report


def _value_notes(meter: Meter | None, stats: bool) -> Iterator[str]:
    """Channels, types and ranges of the training pictures, where they are no photographs; with `stats` mean and std."""
    if meter is None or not meter.count:
        return
    if not meter.plain:
        yield f"training pictures: {meter.describe()} (data.in_chans={meter.bands.channels})"
        yield from meter.notes()
    if stats:
        yield f"all training pictures have {' '.join(meter.settings())}"


def _other_annotations(where: Path) -> Iterator[str]:
    """Annotations of other tasks beside those that were checked."""
    for finder in finders() if where.is_dir() else ():
        info = task_info(finder.tasks[0])
        if not info.reads_labels and (handle := finder.find(where, None)):
            yield f"there are {info.annotations} too ({handle.format}): {parameter('task', info.name)} looks at them"
            return


def _describe_sizes(sizes: Sequence[tuple[int, int]]) -> str:
    if not sizes:
        return ""
    sides = np.array(sizes)
    low, high = sides.min(0), sides.max(0)
    return f"{low[0]} x {low[1]} to {high[0]} x {high[1]} pixels, median {int(np.median(sides.min(1)))} short side"


def _class_notes(train: LabelledSamples, val: LabelledSamples, counts: dict[str, tuple[int, int]]) -> Iterator[str]:
    """Notes that need no image to be decoded."""
    few = {name: train for name, (train, _) in counts.items() if train < MIN_IMAGES}
    if len(few) > MOST_ALONE:
        yield f"{len(few):,} classes have fewer than {MIN_IMAGES} training images: {_listed(list(few))}"
    else:
        for name, count in few.items():
            yield f"class {name!r} has {counted(count, 'training image', 'training images')} only"
    unseen = [name for name, (_, held) in counts.items() if held == 0]
    if len(unseen) > MOST_ALONE:
        yield f"{len(unseen):,} classes have no validation image: {_listed(unseen)}"
    else:
        yield from (f"class {name!r} has no validation image" for name in unseen)
    images = train.counts()
    if images.max() > 10 * images.min():
        yield f"classes are uneven: {images.min()} to {images.max()} training images (see data.balance)"
    if train.multi_label:
        marks = np.concatenate([train.labels, val.labels]).sum(1)  # (N,) labels of each image
        yield (
            f"several labels an image: {marks.mean():.1f} on average, {marks.max()} at most, none for"
            f" {(marks == 0).sum()} images"
        )


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:MOST_ALONE])} and {len(names) - MOST_ALONE:,} more"


def _exif_notes(orientations: Sequence[tuple[int, int]], exif: str, info: TaskInfo) -> Iterator[str]:
    """How images with an EXIF orientation are read: upright and as stored, in each split."""
    upright, stored = np.sum(orientations, axis=0).tolist()
    if upright + stored:
        labels_only = "exif" in info.unused_settings.get("data", ())
        how = "read upright" if labels_only else f"read upright, {stored} as stored"
        rule = "" if labels_only else f" (data.exif={exif}{': by their annotated size' if exif == 'auto' else ''})"
        yield f"{counted(upright + stored, 'image has', 'images have')} an EXIF orientation: {upright} {how}{rule}"


def _check_split(
    inspection: Inspection,
    report: DatasetReport,
    sizes: list[tuple[int, int]],
    seen: dict[str, tuple[str, str, str]],  # pixels -> split, label, key of the first such image
    on_image: Callable[[], None],
    meter: Meter | None,
    on_picture: Callable[[str, int, Image.Image], None] | None,
) -> None:
    """Decode every image of a split; equal pixels under another label or in the other split are a problem."""
    split, samples = inspection.split, inspection.samples
    for index, key in enumerate(samples.keys):
        on_image()
        try:
            image = inspection.check_image(index)
            inspection.count_orientation(index, image)
        except BadImage as error:
            report.problems.append(f"{split}: {key}: {error.reason}")
            continue
        sizes.append(image.size)
        if meter:
            meter.add(image)
        mark = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
        label = "|".join(samples.names_of(index)) or ("no label" if task_info(samples.task).reads_labels else "")
        picture = shown(image) if isinstance(image, Raster) else image
        inspection.prints.add(index, picture)
        if on_picture:
            on_picture(split, index, picture)
        before = seen.setdefault(mark, (split, label, key))
        if before[2] != key:
            inspection.repeated.add(index)
        if before[:2] != (split, label):
            first = _labelled(before[2], before[1])
            report.problems.append(f"{split}: {_labelled(key, label)} is the same picture as {before[0]}: {first}")


def _add_near_duplicates(report: DatasetReport, train: Inspection, val: Inspection, group: str | None) -> None:
    """Validation images that look like a training image, apart from those with equal pixels, which are named before."""
    report.near = [pair for pair in find_pairs(train.prints, val.prints) if pair.val not in val.repeated]
    if uniform := [(part, index) for part in (train, val) for index in part.prints.uniform]:
        part, index = uniform[0]
        many = counted(len(uniform), "image is nearly uniform", "images are nearly uniform")
        report.notes.append(f"{many}, such as {part.samples.keys[index]}: not searched for near duplicates")
    if not report.near:
        return
    first, count = report.near[0], len(val.samples)
    names = f"{val.samples.keys[first.val]} and {train.samples.keys[first.train]}"
    many = counted(len(report.near), "validation image looks", "validation images look")
    what = "scenes or patients" if group is None else "groups"
    advice = "; data.group keeps pictures of one scene or patient in one part" if group is None else ""
    report.notes.append(
        f"{many} almost like a training image, such as {names}: figures of these ({len(report.near) / count:.1%}) say"
        f" little about new {what}{advice}"
    )


def _labelled(key: str, label: str) -> str:
    return f"{key} ({label})" if label else key
