"""Exporter of detectors: one image of a fixed size in, arrays out; objects are compared (promise P15).

A one-stage detector's file takes any number of images of any size.

Objects with about the same score may swap places, and an object near the cut-off may be missing: neither counts
as a difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from resnest.detection.card import DIVISOR, DetectionCard
from resnest.detection.evaluation import overlap
from resnest.detection.predict import gives
from resnest.detection.result import Detections
from resnest.errors import ResnestError, parameter
from resnest.exporters.capture import Arrays, Interface
from resnest.exporters.formats import FORMATS, MAX_PIXELS, Exporter, Format, Size, check_sides
from resnest.exporters.gate import Agree, Measure, Shape
from resnest.inference.model import Model
from resnest.runtime.results import THRESHOLD

DETECTION_TOLERANCES = {"boxes": 0.01, "scores": 1e-3, "masks": 1e-2}  # 1 - IoU, score, probability of a pixel (P15)
BORDER = 1e-3  # a score this near the cut-off
SAME_PLACE = 0.5  # IoU of two boxes of one object whose picture was prepared in two ways
COVERED = 0.95  # of the pictures a file's size holds: one odd panorama would make it larger for all
SIZES = ((64, 64), (96, 160), (256, 192))  # compared of a file for any
COUNTS = (1, 2)
EXAMPLE = 256  # pixels of a side: P7 has several
PICTURES = 16  # that are compared: one takes as long as a dozen of a classifier


class DetectionExporter(Exporter):
    """Exporter of detectors."""

    by_layers = False
    most_pictures = PICTURES
    unlike = "other objects"
    things = f"objects of {THRESHOLD:.0%} and more"
    on_data = True

    def sized(self, model: Model, size: Size, form: Format) -> Model:
        """Images are fitted into the one size that the file takes, unless it takes any.

        By default the one that most pictures of the training data have when they are evaluated, so that they are
        prepared as then. Where the card does not know them, a square that fits a 4:3 picture in either orientation.
        """
        if not form.many_outputs:
            able = ", ".join(name for name, other in FORMATS.items() if other.many_outputs)
            raise ResnestError(f"{parameter('format', form.name)} cannot hold a detector: choose one of {able}")
        assert isinstance(model.card, DetectionCard)
        if size is None and model.card.detector.free_size:
            return model
        preprocess = model.card.preprocess
        canvas = usual_canvas(model.card)[0] if size is None else (size, size) if isinstance(size, int) else size
        check_sides(canvas, least=DIVISOR, most=MAX_PIXELS, what="a detector's image", multiple=DIVISOR)
        return replace(model, card=replace(model.card, preprocess=replace(preprocess, canvas=canvas)))

    def explain_size(self, model: Model, size: Size) -> str:
        assert isinstance(model.card, DetectionCard)
        return usual_canvas(model.card)[1] if size is None and not model.card.detector.free_size else ""

    def same_result(self, before: Detections, after: Detections) -> bool:
        """Every object that is shown has one of its class in about the same place on the other side."""
        ours, theirs = before.shown(), after.shown()
        near = overlap(ours.boxes, theirs.boxes, np.zeros(len(theirs), bool)) >= SAME_PLACE  # (ours, theirs)
        near &= ours.labels[:, None] == theirs.labels
        return len(ours) == len(theirs) and bool(near.any(0).all() and near.any(1).all())

    def interface(self, card: DetectionCard, form: Format) -> Interface:
        count = None if card.detector.free_size else 1
        return Interface(card.in_chans, count, card.preprocess.canvas, tuple(gives(card)), EXAMPLE)

    def shapes(self, card: DetectionCard, form: Format) -> list[Shape]:
        sizes = [card.preprocess.canvas] if card.preprocess.canvas else SIZES
        counts = COUNTS if card.detector.free_size else (1,)
        return [(count, card.in_chans, high, wide) for high, wide in sizes for count in counts]

    def settings(self, card: DetectionCard) -> Mapping[str, Any]:
        return {"threshold": THRESHOLD, "category_ids": list(card.category_ids)}

    def batches(self, card: Any, images: Sequence[Image.Image], size: int) -> Iterator[NDArray[np.float32]]:
        """Pictures that fill the file's size: in flat padding objects tie, and those never reach a result."""
        if card.preprocess.canvas is None:
            yield from super().batches(card, images, size)
            return
        high, wide = canvas = card.preprocess.canvas
        filling = replace(card.preprocess, short=min(canvas), long=max(canvas))
        for image in images[: self.most_pictures]:
            yield filling(image.resize((wide, high)))[None]

    def module(self, model: Model) -> nn.Module:
        return ExportableDetector(super().module(model))

    def agree(self, card: DetectionCard) -> Agree:
        return partial(same_objects, threshold=card.detector.min_score)

    def measure(self, card: DetectionCard) -> Measure:
        return detection_differences

    def tolerances(self, card: DetectionCard) -> Mapping[str, float]:
        return {name: DETECTION_TOLERANCES[name] for name in gives(card) if name in DETECTION_TOLERANCES}


def usual_canvas(card: DetectionCard) -> tuple[tuple[int, int], str]:
    """Height and width that hold almost all pictures of the training data as they are evaluated, and why, in words."""
    preprocess, shapes = card.preprocess, Counter[tuple[int, int]]()
    for size, count in card.image_sizes.items():
        width, height = map(int, size.split("x"))
        shapes[preprocess.padded_size(width, height)] += count
    if not shapes:
        square = -(-preprocess.short * 4 // 3 // DIVISOR) * DIVISOR
        return (square, square), "a square, since the model does not record the sizes of its training pictures"
    high = wide = held = 0
    for (height, width), count in shapes.most_common():
        if held >= COVERED * shapes.total() and (height > high or width > wide):
            continue
        high, wide, held = max(high, height), max(wide, width), held + count
    most = MAX_PIXELS // DIVISOR * DIVISOR
    share = held / shapes.total()
    return (min(high, most), min(wide, most)), f"holds {share:.0%} of the training pictures at the size of evaluation"


class ExportableDetector(nn.Module):
    """A detector with a tuple of outputs, for export."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) -> boxes, scores, labels, and masks if it has them."""
        return tuple(value for value in self.net(images) if value is not None)


def detection_differences(expected: Arrays, got: Arrays) -> dict[str, float]:
    """The largest differences of matched objects: 1 - IoU of boxes, scores, mask probabilities."""
    apart = dict.fromkeys((name for name in DETECTION_TOLERANCES if name in expected), 0.0)
    if not all(np.isfinite(got[name]).all() for name in apart):
        return dict.fromkeys(apart, float("inf"))
    for image in range(len(expected["scores"])):
        for ours, theirs, shared in _pairs(expected, got, image):
            apart["boxes"] = max(apart["boxes"], 1 - shared)
            for name in apart.keys() - {"boxes"}:
                distance = np.abs(expected[name][image, ours] - got[name][image, theirs]).max()
                apart[name] = max(apart[name], float(distance))
    return apart


def same_objects(expected: Arrays, got: Arrays, *, threshold: float) -> NDArray[np.bool_]:
    """For each image, whether every object has a counterpart on the other side, except near the cut-off: (N,).

    Args:
        threshold: the score above which the detector keeps objects.
    """
    same = []
    for image, (ours, theirs) in enumerate(zip(expected["scores"], got["scores"], strict=True)):
        pairs = _pairs(expected, got, image)
        matched = [{pair[side] for pair in pairs} for side in (0, 1)]
        same.append(
            all(
                index in matched[side] or scores[index] <= _lowest(ours, theirs, threshold) + BORDER
                for side, scores in ((0, ours), (1, theirs))
                for index in np.flatnonzero(scores > 0)
            )
        )
    return np.array(same, bool)


def _lowest(ours: NDArray[np.float32], theirs: NDArray[np.float32], threshold: float) -> float:
    """The lowest score comparable on both sides: if a list is full, that of its last object."""
    return max(threshold, *(float(scores.min()) for scores in (ours, theirs)))


def _pairs(expected: Arrays, got: Arrays, image: int) -> list[tuple[int, int, float]]:
    """Matched objects of one image, and their IoU.

    They are of one class, and have the nearest score among those with the same box.
    """
    ours, theirs = (np.flatnonzero(side["scores"][image] > 0) for side in (expected, got))
    no_crowd = np.zeros(len(theirs), bool)
    overlaps = overlap(expected["boxes"][image, ours], got["boxes"][image, theirs], no_crowd)  # (ours, theirs)
    alike = overlaps >= 1 - DETECTION_TOLERANCES["boxes"]
    alike &= expected["labels"][image, ours][:, None] == got["labels"][image, theirs]
    apart = np.abs(expected["scores"][image, ours][:, None] - got["scores"][image, theirs])
    pairs = []
    for row, index in enumerate(ours):
        if alike[row].any():
            column = int(np.where(alike[row], apart[row], np.inf).argmin())
            alike[:, column] = False  # it is taken
            pairs.append((int(index), int(theirs[column]), float(overlaps[row, column])))
    return pairs
