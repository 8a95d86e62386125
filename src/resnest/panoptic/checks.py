"""The format of data sets with segments, and the doctor's look at them: what the json says against the pixels.

inspection = PanopticInspection("train", samples)
inspection.check_image(0)                         # the image; its map is counted. Raises BadImage
inspection.problems                               # areas and boxes that are not those of the map
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from resnest.data.checks import MIN_IMAGES, DatasetReport
from resnest.data.folders import list_panoptic
from resnest.data.formats import DatasetHandle, Finder, Read, handle_of_parts
from resnest.data.parts import choose_splits
from resnest.detection.checks import named, size_notes
from resnest.errors import ResnestError
from resnest.panoptic.data import PanopticSamples
from resnest.panoptic.json_files import all_classes, read_panoptic
from resnest.panoptic.result import PanopticMap
from resnest.segmentation.checks import MaskInspection, pixel_notes

# --- The format of data sets with segments: COCO's panoptic json and PNG files ---


def find_panoptic(path: Path, task: str | None = None) -> DatasetHandle | None:
    """A json, or one for each split; as masks of all classes for semantic segmentation."""
    as_masks = task == "segmentation"

    def read(name: str) -> Read:
        file = path / name if name else path
        return (lambda: all_classes(read_panoptic(file, only_stuff=True))) if as_masks else partial(read_panoptic, file)

    if path.is_file():
        return DatasetHandle("panoptic", str(path), unsplit=read("")) if path.suffix.lower() == ".json" else None
    parts = choose_splits(list_panoptic(path))
    for chosen in parts:
        if len(chosen) > 1:
            raise ResnestError(f"{path} has several panoptic files of one split: {', '.join(chosen)}; give one of them")
    if parts.val:
        return handle_of_parts("panoptic", str(path), parts, lambda names: read(names[0]))
    return DatasetHandle("panoptic", str(path), unsplit=read(parts.unsplit[0])) if parts.unsplit else None


FINDERS = (Finder("panoptic", ("panoptic", "segmentation"), find_panoptic, first=True),)


class PanopticInspection(MaskInspection):
    """Pixels of each class, and inconsistent segments."""

    samples: PanopticSamples

    def __init__(self, split: str, samples: PanopticSamples) -> None:
        super().__init__(split, samples)
        self.problems: list[str] = []

    def check_image(self, index: int) -> Image.Image:
        truth = self.samples.truth(index)
        image = self.samples.decode(index)
        self.tally.add(self.samples.keys[index], self.samples.labels_of(truth))
        self.problems += self._differences(index, truth)
        return image

    def add_to(self, report: DatasetReport, val: PanopticInspection) -> None:
        self.add_counts(report, val)
        report.problems += [*panoptic_problems(self.samples), *self.problems, *val.problems]
        report.notes += panoptic_notes(self, val)

    def _differences(self, index: int, truth: PanopticMap) -> Iterator[str]:
        for entry, segment in zip(self.samples.segments[index], truth.segments, strict=True):
            name = f"{self.split}: {self.samples.keys[index]}: segment {segment.id}"
            if entry["area"] != segment.area:
                yield f"{name}: the json has {entry['area']:g} pixels, the map has {segment.area}"
            if tuple(entry["bbox"]) != segment.box:
                bbox = ", ".join(f"{side:g}" for side in entry["bbox"])
                yield f"{name}: the json has bbox ({bbox}), in the map it is {segment.box}"


def panoptic_problems(samples: PanopticSamples) -> Iterator[str]:
    """Problems that prevent panoptic training."""
    things, count = samples.classes.things, len(samples.class_names)
    if things in (0, count):
        missing, task = ("stuff", "detection") if things else ("things", "segmentation")
        yield f"there is no class of {missing}: take a recipe for {task}"


def panoptic_notes(train: PanopticInspection, val: PanopticInspection) -> Iterator[str]:
    """Statistics to choose settings by."""
    things = train.samples.classes.things
    yield f"{things} classes of things, {len(train.tally.class_names) - things} of stuff"
    if names := named(train.tally.class_names, (train.tally.images > 0) & (train.tally.images < MIN_IMAGES)):
        yield f"fewer than {MIN_IMAGES} training images show {names}"
    parts = (train.samples, val.samples)
    without = [int(np.count_nonzero(samples.objects.counts == 0)) for samples in parts]
    if any(without):
        yield f"{without[0]} training and {without[1]} validation images have no things: they are used for stuff"
    crowds = sum(int(samples.objects.crowd[samples.objects.rows()].sum()) for samples in parts)
    if crowds:
        yield f"{crowds} crowds, which are ignored as objects"
    yield from pixel_notes(train.tally, val.tally)
    yield from size_notes([samples.objects for samples in parts])
