"""What evaluating a detector gave: COCO's figures, and what was missed or found wrongly in every image.

result.figures["box_ap50"], result.headline, result.class_ap["box"], result.curves["box"]
for place in result.worst(24): result.indices[place], result.mistakes[place].missed
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.errors import ResnestError
from resnest.inference.outcome import Evaluation, Indices
from resnest.metrics.coco import CocoMetrics, Floats, Truth
from resnest.runtime.detections import Detections

ENOUGH = 0.5  # IoU from which on a box is found
ROWS = {
    "ap": ("AP", "mean over IoU 0.50 to 0.95"),
    "ap50": ("AP50", "at IoU 0.50"),
    "ap75": ("AP75", "at IoU 0.75"),
    "aps": ("AP small", "objects below 32 x 32 pixels"),
    "apm": ("AP medium", "up to 96 x 96"),
    "apl": ("AP large", "above"),
    "ars": ("AR small", "objects below 32 x 32 pixels"),
    "arm": ("AR medium", "up to 96 x 96"),
    "arl": ("AR large", "above"),
}


@dataclass(frozen=True)
class Mistakes:
    """Of one image, at a score of 0.5 and boxes that overlap by 0.5 (IoU)."""

    missed: Indices  # into the image's annotated objects
    false: Indices  # into the objects shown

    def __len__(self) -> int:
        return len(self.missed) + len(self.false)


@dataclass(kw_only=True)
class DetectionEvaluation(Evaluation):
    """Of a detector."""

    counted = "objects"

    class_ap: dict[str, Floats]  # "box" and perhaps "mask": (K,), NaN for a class without objects
    curves: dict[str, Floats]  # (K, 101): precision at IoU 0.5 and recall 0.00, 0.01, ... 1.00
    objects: Indices  # (K,) annotated, without crowds
    shown: list[Detections]  # (N,) the objects with a score of 0.5 or more
    mistakes: list[Mistakes]  # (N,)

    @property
    def headline(self) -> str:
        told = [f"box AP {percent(self.figures['box_ap'])}", f"AP50 {percent(self.figures['box_ap50'])}"]
        if "mask_ap" in self.figures:
            told += [f"mask AP {percent(self.figures['mask_ap'])}", f"AP50 {percent(self.figures['mask_ap50'])}"]
        return ", ".join(told)

    def lines(self) -> list[str]:
        kinds = [kind for kind in ("box", "mask") if f"{kind}_ap" in self.figures]
        lines = [" " * 9 + "".join(f"{kind:>9}" for kind in kinds)]
        for name in (name.removeprefix("box_") for name in self.figures if name.startswith("box_")):
            title, told = ROWS.get(name) or (f"AR {name[2:]}", f"of the best {name[2:]} of each class in an image")
            values = "".join(f"{percent(self.figures[f'{kind}_{name}']):>9}" for kind in kinds)
            lines.append(f"{title:<9}{values}   {told}")
        return lines

    def per_class(self) -> list[tuple[str, float | None, int]]:
        """Name, box AP and number of objects of each class; None where there is none."""
        areas = self.class_ap["box"]
        return [
            (name, None if math.isnan(area) else float(area), int(count))
            for name, area, count in zip(self.class_names, areas, self.objects, strict=True)
        ]

    def worst(self, most: int) -> Indices:
        """Positions of the images with most objects missed or found wrongly, worst first."""
        counts = np.array([len(one) for one in self.mistakes], np.int64)
        order = np.argsort(-counts, kind="stable")
        return order[counts[order] > 0][:most]


def percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{share:.2%}"


def collect_detections(
    found: Mapping[int, Detections],
    truths: Any,
    class_names: tuple[str, ...],
    *,
    max_detections: int,
    bad: list[tuple[str, str]],
    seconds: float,
) -> DetectionEvaluation:
    """The evaluation of all images together; `truths[index]` is what image `index` shows.

    Raises:
        ResnestError: there is none, or faster-coco-eval is not installed.
    """
    if not found:
        raise ResnestError("not one image could be used")
    indices = sorted(found)
    metrics = CocoMetrics(class_names, masks=found[indices[0]].masks is not None, max_detections=max_detections)
    shown, mistakes = [], []
    counts = np.zeros(len(class_names), np.int64)
    for index in indices:
        truth: Truth = truths[index]
        metrics.update(index, found[index], truth)
        counts += np.bincount(truth.labels[~truth.crowd], minlength=len(class_names))
        shown.append(found[index].shown())
        mistakes.append(find_mistakes(shown[-1], truth))
    result = metrics.compute()
    return DetectionEvaluation(
        figures=result.figures,
        class_names=class_names,
        indices=np.array(indices, np.int64),
        bad=bad,
        seconds=seconds,
        class_ap=result.class_ap,
        curves=result.curves,
        objects=counts,
        shown=shown,
        mistakes=mistakes,
    )


def find_mistakes(shown: Detections, truth: Truth) -> Mistakes:
    """The best first, each takes the free object of its class that it overlaps most; crowds forgive any number."""
    overlaps = overlap(shown.boxes, truth.boxes, truth.crowd)
    overlaps *= shown.labels[:, None] == truth.labels[None]
    free = ~truth.crowd
    false = []
    for place in np.argsort(-shown.scores, kind="stable"):
        row = np.where(free, overlaps[place], 0)
        if len(row) and row.max() >= ENOUGH:
            free[row.argmax()] = False
        elif not (overlaps[place][truth.crowd] >= ENOUGH).any():
            false.append(place)
    return Mistakes(np.flatnonzero(free), np.array(false, np.int64))


def overlap(boxes: NDArray[np.float32], others: NDArray[np.float32], crowd: NDArray[np.bool_]) -> Floats:
    """(M, 4), (T, 4) -> IoU (M, T); of a crowd, how much of the box lies in it."""
    one, other = boxes[:, None].astype(np.float64), others[None].astype(np.float64)
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    shared = np.maximum(sides, 0).prod(-1)  # (M, T)
    area, areas = (np.maximum(box[..., 2:] - box[..., :2], 0).prod(-1) for box in (one, other))
    whole = np.where(crowd, area, area + areas - shared)
    overlaps: Floats = np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)
    return overlaps
