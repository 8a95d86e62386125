"""The doctor's look at masks of each class: pixels that are in them, pictures that show nothing.

inspection = MaskStackInspection("train", samples)
inspection.check_image(0)                         # the image; its masks are counted. Raises BadImage
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from resnest.data.checks import DatasetReport, Inspection
from resnest.detection.checks import MOST_NAMED, named
from resnest.figures import counted
from resnest.segmentation.mask_stacks import MaskStackSamples, count_masks
from resnest.segmentation.paired import any_counts

RARE = 0.005  # fraction of pixels below which a class is hardly learned without a higher weight


class MaskStackInspection(Inspection):
    """Checks of images with masks of each class."""

    samples: MaskStackSamples

    def __init__(self, split: str, samples: MaskStackSamples) -> None:
        super().__init__(split, samples)
        count = len(samples.class_names)
        self.pixels, self.known = np.zeros(count, np.int64), np.zeros(count, np.int64)  # of each class; that count
        self.size = 0  # pixels of all masks of one class
        self.images = np.zeros(count, np.int64)  # that show each class
        self.read = self.overlapping = 0  # pictures; those with a pixel in several masks
        self.empty: list[str] = []  # images that show no class
        self.uncounted: list[str] = []  # images of which no pixel counts

    def check_image(self, index: int) -> Image.Image:
        image, mask = self.samples.pair(index)
        pixels, known = count_masks(mask)
        self.pixels, self.known, self.images = self.pixels + pixels, self.known + known, self.images + (pixels > 0)
        self.size += mask[0].size
        self.read += 1
        self.overlapping += bool(((mask == 1).sum(0) > 1).any())
        key = self.samples.keys[index]
        if not any_counts(mask):
            self.uncounted.append(key)
        elif not pixels.any():
            self.empty.append(key)
        return image

    def fractions(self) -> list[float]:
        """Of the pixels that count for each class, those in its mask."""
        return [float(part) for part in self.pixels / self.known.clip(1)]

    def add_to(self, report: DatasetReport, val: MaskStackInspection) -> None:
        names = self.samples.class_names
        report.counts = {name: (int(self.images[k]), int(val.images[k])) for k, name in enumerate(names)}
        report.pixels = dict(zip(names, zip(self.fractions(), val.fractions(), strict=True), strict=True))
        if self.read:
            report.problems += self._problems(val)
        report.notes += self._notes(val)

    def _problems(self, val: MaskStackInspection) -> Iterator[str]:
        """Classes that cannot be trained."""
        names, learned, measured = self.samples.class_names, self.images > 0, val.images > 0
        if lacking := named(names, measured & ~learned):
            yield f"only the validation split has pixels of {lacking}: they are never predicted"
        if full := named(names, (self.pixels == self.known) & learned):
            yield f"all training pixels that count are in the mask of {full}: nothing can be learned of it"

    def _notes(self, val: MaskStackInspection) -> Iterator[str]:
        names = self.samples.class_names
        for part, found in (("training", self), ("validation", val)):
            if not found.read:
                yield f"no {part} mask can be used, so nothing is said of their pixels"
                continue
            shares = [f"{name} {percent(share)}" for name, share in zip(names, found.fractions(), strict=True)]
            more = ", ..." if len(names) > MOST_NAMED else ""
            yield f"{part} pixels in the masks of each class: {', '.join(shares[:MOST_NAMED])}{more}"
            for keys, what in ((found.empty, "no class"), (found.uncounted, "only ignored pixels")):
                if keys:
                    some = ", ".join(keys[:MOST_NAMED]) + (", ..." if len(keys) > MOST_NAMED else "")
                    yield f"{counted(len(keys), f'{part} picture shows', f'{part} pictures show')} {what}: {some}"
        learned, measured = self.images > 0, val.images > 0
        if only := named(names, learned & ~measured):
            yield f"only the training split has pixels of {only}: they are not evaluated"
        if none := named(names, ~learned & ~measured):
            yield f"no mask has a pixel of {none}"
        if rare := named(names, learned & (np.array(self.fractions()) < RARE)):
            yield f"less than {percent(RARE)} of the training pixels show {rare}"
        if several := self.overlapping + val.overlapping:
            yield f"{counted(several, 'picture has', 'pictures have')} masks that overlap"
        ignored = [1 - found.known.sum() / max(found.size * len(names), 1) for found in (self, val)]
        yield f"{percent(ignored[0])} of the training and {percent(ignored[1])} of the validation pixels do not count"


def percent(fraction: float) -> str:
    """With the significant digits."""
    return f"{fraction:.1%}" if fraction >= 0.001 or fraction == 0 else f"{100 * fraction:.1g}%"
