"""Data sets and their parts, whatever format they have.

    data = open_dataset(Path("flowers"))               # data.format, data.train, data.val: to train on
    part = open_part(Path("imagenet"), split="val")    # one part alone: to evaluate on

Which format that is, is the one rule of `finding`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resnest.data.detection import DetectionSamples, same_categories
from resnest.data.finding import FORMATS, find
from resnest.data.found import Found
from resnest.data.panoptic import PanopticSamples, same_segments
from resnest.data.pixels import PixelSamples, same_pixel_classes
from resnest.data.samples import Samples, split_samples
from resnest.errors import ResnestError

__all__ = ["FORMATS", "Part", "Splits", "open_dataset", "open_part"]


@dataclass(frozen=True)
class Splits:
    """A data set for training: both parts have the same classes."""

    format: str  # one of FORMATS
    where: str
    train: Samples
    val: Samples
    whole: Samples | None = None  # both parts together, where the validation part was held back here

    def __post_init__(self) -> None:
        _check_labels(self.train, self.where)
        if len(self.val) == 0:
            raise ResnestError(f"{self.where} has no validation image: every class has one image only")
        if self.val.multi_label and not self.val.labels.any():
            raise ResnestError(f"{self.where} has no label on any validation image: nothing to measure by")

    def describe(self) -> str:
        held = " held back" if self.whole else ""
        told = (
            f"{self.where} ({self.format}): {len(self.train)} training and {len(self.val)} validation images{held},"
            f" {_classes(self.train)}"
        )
        if isinstance(self.train, DetectionSamples) and isinstance(self.val, DetectionSamples):
            objects = f"{self.train.object_counts().sum():,} and {self.val.object_counts().sum():,} objects"
            return f"{told}, {objects}{_left_out(self.train, self.val)}"
        if isinstance(self.train, PixelSamples) and isinstance(self.val, PixelSamples):
            return f"{told}, masks{_left_out(self.train, self.val)}"
        return f"{told}{', several an image' if self.train.multi_label else ''}"


@dataclass(frozen=True)
class Part:
    """The images to evaluate on, and which they are."""

    samples: Samples
    describe: str


def open_dataset(
    where: str | Path, *, format: str = "auto", task: str | None = None, val_share: float = 0.2, seed: int = 0
) -> Splits:
    """Open a data set in whatever format it has, to train on.

    Args:
        where: a folder, a file, "hf:owner/name" or "digits".
        format: one of FORMATS where the rule above would choose another.
        task: what it is for, where it has annotations of several kinds: "segmentation", "panoptic", ...
        val_share: share of each class that is held back if the data set has no validation part.
        seed: of that split.

    Raises:
        ResnestError: nothing there, no images, one class, a class without images, classes that do not agree.
    """
    found = find(where, format, task)
    if found.whole is not None:
        return _split(found, found.whole(), val_share, seed)
    if found.train is None or found.val is None:
        raise ResnestError(f"{found.where} has a validation part but no folder train beside it: nothing to train on")
    return Splits(found.format, found.where, *_same_classes(found.train(), found.val(), found.where))


def open_part(
    where: str | Path,
    split: str = "auto",
    *,
    format: str = "auto",
    task: str | None = None,
    held_back: tuple[float, int] | None = None,
) -> Part:
    """Open the part of a data set to evaluate on; the other one is not read.

    Args:
        split: "val", "train", "all" of a data set without parts; "auto" takes the validation part, and of a data set
            without parts what training held back, or everything if the model was not trained here.
        task: what it is for, as in `open_dataset`.
        held_back: share and seed of the split in training; None for a model that was not trained here.

    Raises:
        ResnestError: as `open_dataset`; a part that the data set does not have.
    """
    if split not in ("auto", "val", "train", "all"):
        raise ResnestError(f"--split {split}: expected auto, val, train or all")
    found = find(where, format, task)
    if found.whole is None:
        if split == "all":
            raise ResnestError(f"--split all: {found.where} comes with its own validation part; choose val or train")
        read, name = (found.train, "training") if split == "train" else (found.val, "validation")
        if read is None:
            raise ResnestError(f"--split {split}: {found.where} has no {name} part")
        return _part(found, read(), f"{name} images")
    whole = found.whole()
    if split == "all" or (split == "auto" and held_back is None):
        return _part(found, whole, "images, all there are")
    share, seed = held_back or (0.2, 0)
    splits = _split(found, whole, share, seed)
    if split == "train":
        return _part(found, splits.train, "images, without those held back")
    return _part(found, splits.val, "images held back")


def _part(found: Found, samples: Samples, what: str) -> Part:
    told = f"{found.where} ({found.format}): {len(samples)} {what}, {_classes(samples)}"
    if isinstance(samples, DetectionSamples):
        told += f", {samples.object_counts().sum():,} objects{_left_out(samples)}"
    elif isinstance(samples, PixelSamples):
        told += f", masks{_left_out(samples)}"
    return Part(samples, told)


def _classes(samples: Samples) -> str:
    count = len(samples.class_names)
    things = f", {samples.classes.things} of them things" if isinstance(samples, PanopticSamples) else ""
    return f"{count} class{'es' if count != 1 else ''}{things}"


def _left_out(*parts: DetectionSamples | PixelSamples) -> str:
    """What was left out when parts were read; once, where both come from one file."""
    notes = [note for part in parts for note in part.notes]
    if len(parts) == 2 and parts[0].notes != parts[1].notes:
        notes = [
            f"{name}: {note}"
            for name, part in zip(("training", "validation"), parts, strict=True)
            for note in part.notes
        ]
    return f" ({'; '.join(dict.fromkeys(notes))})" if notes else ""


def _split(found: Found, samples: Samples, val_share: float, seed: int) -> Splits:
    if len(samples) == 1:
        raise ResnestError(f"{found.where} has one image only: nothing would be left to validate on")
    _check_labels(samples, found.where)
    return Splits(found.format, found.where, *split_samples(samples, val_share, seed), whole=samples)


def _same_classes(train: Samples, val: Samples, where: str) -> tuple[Samples, Samples]:
    """Renumber the validation labels by the training classes; a class may lack validation images."""
    if isinstance(train, PanopticSamples) and isinstance(val, PanopticSamples):
        return same_segments(train, val, where)
    if isinstance(train, DetectionSamples) and isinstance(val, DetectionSamples):
        return same_categories(train, val)
    if isinstance(train, PixelSamples) and isinstance(val, PixelSamples):
        return same_pixel_classes(train, val, where)
    strange = [name for name in val.class_names if name not in train.class_names]
    if strange:
        images = [key for place, key in enumerate(val.keys) if strange[0] in val.names_of(place)]
        told = ", ".join(strange[:5]) + (f" (as in {images[0]})" if images else "")
        raise ResnestError(f"{where}: validation has classes that training has not: {told}")
    if val.multi_label and not train.multi_label:
        raise ResnestError(f"{where}: validation images have several labels and training images one: call both labels")
    index = np.array([train.class_names.index(name) for name in val.class_names], np.int64)
    return train, val.renumbered(index, train.class_names, multi_label=train.multi_label)


def _check_labels(samples: Samples, where: str) -> None:
    """Whether there is something to learn; of objects and in masks, a class may have nothing."""
    if isinstance(samples, PixelSamples):
        if len(samples.class_names) < 2:
            raise ResnestError(f"{where} has one class only ({samples.class_names[0]}): a segmenter needs two or more")
    elif not isinstance(samples, DetectionSamples):
        _check_classes(samples, where)
    elif not samples.labels.any():
        crowds = " (crowds do not count)" if samples.objects.crowd.any() else ""
        raise ResnestError(f"{where}: no training image has an object with an area{crowds}")


def _check_classes(samples: Samples, where: str) -> None:
    if not samples.class_names:
        raise ResnestError(f"{where} has no label in any line")
    if len(samples.class_names) < 2 and not samples.multi_label:
        raise ResnestError(f"{where} has one class only ({samples.class_names[0]}): a classifier needs two or more")
    empty = [samples.class_names[label] for label in np.flatnonzero(samples.counts() == 0)]
    if empty:
        raise ResnestError(f"{where}: no training image of class {', '.join(empty[:5])}")
