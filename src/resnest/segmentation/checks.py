"""Formats of data sets with masks, and the doctor's look at them.

inspection = SegmentationInspection("train", samples)
inspection.check_image(0)                         # the image; its mask is counted. Raises BadImage
for line in pixel_notes(train, val): print(line)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.data.checks import DatasetReport, Inspection
from resnest.data.formats import DatasetHandle, Finder, handle_of_folders
from resnest.detection.checks import MOST_NAMED, named
from resnest.figures import counted
from resnest.segmentation.card import IGNORED, MULTI_LABEL
from resnest.segmentation.data import PixelSamples
from resnest.segmentation.datasets import find_ade20k, find_cityscapes, find_voc_masks
from resnest.segmentation.mask_folders import find_masks, read_masks
from resnest.segmentation.mask_stack_checks import RARE, MaskStackInspection, percent
from resnest.segmentation.mask_stacks import MaskStackSamples
from resnest.segmentation.nnunet import find_nnunet
from resnest.segmentation.stack_folders import find_class_masks, find_label_masks, find_stacks, stacked

# --- The formats of data sets with masks: Cityscapes, ADE20K, Pascal VOC, and folders of images and masks ---
# First match wins, in the order of FINDERS. Folders of any other names are searched by `mask_folders`, and their list
# of classes by `class_lists`.


def find_mask_folders(path: Path) -> DatasetHandle | None:
    folders = find_masks(path)
    if folders is None:
        return None
    if folders.parts is None:
        return DatasetHandle("masks", str(path), unsplit=partial(read_masks, folders.pairs[""], path))
    return handle_of_folders("masks", path, folders.parts, lambda name: partial(read_masks, folders.pairs[name], path))


Find = Callable[[Path], DatasetHandle | None]


def _finder(name: str, find: Find, reading: str = "") -> Finder:
    return Finder(name, ("segmentation",), lambda path, task: find(path) if path.is_dir() else None, reading=reading)


LABELLED: dict[str, Find] = {
    "cityscapes": find_cityscapes,
    "ade20k": find_ade20k,
    "voc": find_voc_masks,
    "nnunet": find_nnunet,
}
FINDERS = (
    *(_finder(name, find) for name, find in LABELLED.items()),
    _finder("masks", find_mask_folders),
    _finder("masks", find_class_masks, MULTI_LABEL),
    _finder("masks", find_stacks, MULTI_LABEL),
    *(_finder(name, lambda path, find=find: stacked(find(path)), MULTI_LABEL) for name, find in LABELLED.items()),  # type: ignore[misc]
    _finder("masks", find_label_masks, MULTI_LABEL),
)


class Tally:
    """Pixels and images of each class, in the masks of one split."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = class_names
        self.pixels = np.zeros(IGNORED + 1, np.int64)  # the last: what does not count
        self.images = np.zeros(len(class_names), np.int64)
        self.empty: list[str] = []  # images whose masks have only ignored pixels

    def add(self, key: str, mask: NDArray[np.uint8]) -> None:
        """A mask, (H, W)."""
        counts = np.bincount(mask.reshape(-1), minlength=IGNORED + 1)
        self.pixels += counts
        self.images += counts[: len(self.images)] > 0
        if counts[IGNORED] == mask.size:
            self.empty.append(key)

    def fractions(self) -> NDArray[np.float64]:
        """Fractions of the pixels that are not ignored, by class, (K,)."""
        counts = self.pixels[: len(self.class_names)]
        fractions: NDArray[np.float64] = counts / max(1, counts.sum())
        return fractions

    @property
    def is_known(self) -> bool:
        """Whether any mask could be read."""
        return bool(self.pixels.any())

    @property
    def ignored(self) -> float:
        """Fraction of ignored pixels."""
        return float(self.pixels[IGNORED] / max(1, self.pixels.sum()))


class MaskInspection(Inspection):
    """Checks of images with annotations for every pixel."""

    def __init__(self, split: str, samples: Any) -> None:
        super().__init__(split, samples)
        self.tally = Tally(samples.class_names)

    def add_counts(self, report: DatasetReport, val: MaskInspection) -> None:
        """Adds the class counts of both splits."""
        train, other = self.tally, val.tally
        names = train.class_names
        report.counts = {name: (int(train.images[k]), int(other.images[k])) for k, name in enumerate(names)}
        fractions = zip(train.fractions().tolist(), other.fractions().tolist(), strict=True)
        report.pixels = dict(zip(names, fractions, strict=True))
        report.problems += pixel_problems(train, other)


class SegmentationInspection(MaskInspection):
    """Checks of images with masks."""

    samples: PixelSamples

    def check_image(self, index: int) -> Image.Image:
        image, mask = self.samples.pair(index)
        self.tally.add(self.samples.keys[index], mask)
        return image

    def add_to(self, report: DatasetReport, val: SegmentationInspection) -> None:
        self.add_counts(report, val)
        if odd := self.samples.counted_from_one():
            report.problems.append(f"{odd.told}: are classes counted from 1, and the list's values from 0?")
        report.notes += pixel_notes(self.tally, val.tally)


def inspection(split: str, samples: PixelSamples | MaskStackSamples) -> Inspection:
    """The checks of a split, by the kind of its masks."""
    if isinstance(samples, MaskStackSamples):
        return MaskStackInspection(split, samples)
    return SegmentationInspection(split, samples)


def pixel_problems(train: Tally, val: Tally) -> Iterator[str]:
    """Classes that cannot be trained."""
    if not train.is_known:
        return
    learned, measured = train.images > 0, val.images > 0
    if names := named(train.class_names, measured & ~learned):
        yield f"only the validation split has pixels of {names}: they are never predicted"
    if learned.sum() == 1:
        yield (
            f"all labelled training pixels show {named(train.class_names, learned)}: nothing can be trained. Where"
            f" others have the value {IGNORED}, list it with its class"
        )


def pixel_notes(train: Tally, val: Tally) -> Iterator[str]:
    """Statistics to choose settings by, of masks that could be read."""
    for part, tally in (("training", train), ("validation", val)):
        if not tally.is_known:
            yield f"no {part} mask can be used, so nothing is said of their pixels"
    if not (train.is_known and val.is_known):
        return
    learned, measured = train.images > 0, val.images > 0
    if names := named(train.class_names, learned & ~measured):
        yield f"only the training split has pixels of {names}: they are not evaluated"
    if names := named(train.class_names, ~learned & ~measured):
        yield f"no mask has a pixel of {names}"
    for part, tally in (("training", train), ("validation", val)):
        if tally.empty:
            some = ", ".join(tally.empty[:MOST_NAMED]) + (", ..." if len(tally.empty) > MOST_NAMED else "")
            yield f"{counted(len(tally.empty), f'{part} mask has', f'{part} masks have')} only ignored pixels: {some}"
    fractions = train.fractions()
    order = np.argsort(-fractions, kind="stable")
    largest = ", ".join(f"{train.class_names[k]} {percent(float(fractions[k]))}" for k in order[:MOST_NAMED])
    yield f"training pixels by class: {largest}{', ...' if len(order) > MOST_NAMED else ''}"
    few = learned & (fractions < RARE)
    if names := named(train.class_names, few):
        yield f"less than {percent(RARE)} of the training pixels show {names}"
    yield f"{percent(train.ignored)} of the training and {percent(val.ignored)} of the validation pixels do not count"
