"""Formats of data sets with keypoints, and the doctor's look at them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from resnest.data.checks import DatasetReport, Inspection
from resnest.data.formats import Finder
from resnest.detection.checks import named
from resnest.figures import counted
from resnest.keypoints import coco, yolo
from resnest.keypoints.card import HeadSpec
from resnest.keypoints.data import KeypointSamples

FINDERS = (
    Finder(coco.FORMAT, ("keypoints",), coco.find_coco),
    Finder(yolo.FORMAT, ("keypoints",), yolo.find_yolo),
)
FEW = 50  # annotated points of a name, below which it is hardly learned
USUAL_OBJECTS = HeadSpec().max_objects


class KeypointInspection(Inspection):
    """Checks of objects with points."""

    samples: KeypointSamples

    def add_to(self, report: DatasetReport, val: KeypointInspection) -> None:
        train, other = self.samples, val.samples
        report.problems += point_problems(train, other)
        report.notes += point_notes(train, other)


def point_problems(train: KeypointSamples, val: KeypointSamples) -> Iterator[str]:
    """Points that cannot be learned, and objects that contradict themselves."""
    learned, measured = train.counts() > 0, val.counts() > 0
    if names := named(train.class_names, measured & ~learned):
        yield f"only the validation split has the points {names}: they are never learned"
    for split, samples in (("train", train), ("val", val)):
        people, rows = samples.people, samples.rows
        points, seen = people.points[rows], people.visible[rows] > 0
        low, high = (
            edge(np.where(seen[..., None], points, outer), axis=1)
            for edge, outer in ((np.min, np.inf), (np.max, -np.inf))
        )
        same = (seen.sum(1) > 1) & (low == high).all(1)
        if same.any():
            row = int(rows[np.argmax(same)])
            many = counted(int(same.sum()), "object has", "objects have")
            yield f"{split}: {many} all points at one place, such as annotation {people.ids[row]}"
        boxes = samples.boxes
        flat = (boxes[:, 2:] <= boxes[:, :2]).any(1)
        if flat.any():
            row = int(rows[np.argmax(flat)])
            yield (
                f"{split}: {counted(int(flat.sum()), 'box has', 'boxes have')} no area, such as that of annotation"
                f" {people.ids[row]}: it is taken for one of a pixel"
            )


def point_notes(train: KeypointSamples, val: KeypointSamples) -> Iterator[str]:
    """Statistics to choose settings by."""
    counts = train.counts()
    if names := named(train.class_names, (counts > 0) & (counts < FEW)):
        yield f"fewer than {FEW} training objects have {names}"
    if names := named(train.class_names, (val.counts() == 0) & (counts > 0)):
        yield f"no validation object has {names}: not measured"
    layout = train.layout
    if layout.pairs:
        pairs = ", ".join(f"{layout.names[one]} and {layout.names[other]}" for one, other in layout.pairs[:3])
        more = f" and {len(layout.pairs) - 3} more" if len(layout.pairs) > 3 else ""
        yield f"mirror images of each other: {pairs}{more}"
    elif layout.pairs == ():
        yield "no point is the mirror image of another: a mirrored one stays itself (keypoints.flip_pairs)"
    if alone := layout.unpaired():
        yield f"{', '.join(alone[:3])} has no counterpart on the other side, and stays itself in a mirrored picture"
    sides = np.sqrt(np.maximum((train.boxes[:, 2:] - train.boxes[:, :2]).prod(1), 0))
    yield f"side of a box: {sides.min():.0f} to {sides.max():.0f} pixels, median {np.median(sides):.0f}"
    people = train.people
    without = int((~people.crowd & ~(people.visible > 0).any(1)).sum())
    if without:
        yield f"{counted(without, 'object has', 'objects have')} no annotated point, and is left out"
    most = max((int(np.bincount(part.people.pictures).max(initial=0)) for part in (train, val)), default=0)
    if most > USUAL_OBJECTS:
        yield f"up to {most} objects in a picture: raise head.max_objects above {USUAL_OBJECTS} to measure them all"
