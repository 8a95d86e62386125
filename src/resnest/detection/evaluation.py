"""Evaluation of a detector: COCO's figures or LVIS's, the errors on each image, and the scorer that collects both.

result.figures["box_ap50"], result.headline, result.class_ap["box"], result.curves["box"]
for i in result.worst(24): result.indices[i], result.mistakes[i].missed
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.detection.card import DetectionCard
from resnest.detection.data import DetectionSamples, Objects
from resnest.detection.federated import COMMON, FREQUENT, is_exhaustive, is_known
from resnest.detection.lvis import CLASS_LIMIT, LIMIT, LvisMetrics
from resnest.detection.lvis_recipes import LOWEST
from resnest.detection.metrics import CocoMetrics, Floats
from resnest.detection.result import Detections
from resnest.errors import ResnestError
from resnest.figures import Figure, percent
from resnest.inference.evaluation import Evaluation, Indices

ENOUGH = 0.5  # IoU from which on a box is found
SMALL, LARGE = "32 x 32", "96 x 96"  # COCO's limits of small and large objects, pixels
NO_MASKS = "masks are not evaluated: no object of this data has an outline"
OVERLAPS = "mean over overlaps (IoU) of 0.50, 0.55, ... 0.95"


def coco_figures(kind: str, max_detections: int = 100) -> tuple[Figure, ...]:
    """COCO's twelve figures of "box" or "mask"; the last recalls use the best `max_detections` per class and image.

    >>> [figure.key for figure in coco_figures("mask")][:3]
    ['mask_ap', 'mask_ap50', 'mask_ap75']
    """
    most = f"{max_detections:,}"
    recalls = {
        "ar1": ("AR 1", f"recall with one detection per image, {OVERLAPS}"),
        "ar10": ("AR 10", "with ten"),
        f"ar{max_detections}": (f"AR {most}", f"with {most}"),
    }
    return _figures(kind, _precisions(kind) | recalls | RECALLS_BY_SIZE)


def lvis_figures(kind: str) -> tuple[Figure, ...]:
    """LVIS's thirteen figures of "box" or "mask", and the fixed AP.

    >>> [figure.key for figure in lvis_figures("box")][6:]
    ['box_apr', 'box_apc', 'box_apf', 'box_ap_fixed', 'box_ar300', 'box_ars', 'box_arm', 'box_arl']
    """
    more = {
        "ap_fixed": ("AP fixed", f"the {CLASS_LIMIT:,} best of each class in all images, without a limit per image"),
        f"ar{LIMIT}": (f"AR {LIMIT}", f"recall of the {LIMIT} best of an image, {OVERLAPS}"),
    }
    return _figures(kind, _precisions(kind) | BY_GROUP | more | RECALLS_BY_SIZE)


def group_figures(kind: str) -> tuple[Figure, ...]:
    """AP of rare, common and frequent classes."""
    return _figures(kind, BY_GROUP)


def _precisions(kind: str) -> dict[str, tuple[str, str]]:
    return {
        "ap": ("AP", f"average precision, {OVERLAPS}"),
        "ap50": ("AP50", "a detection counts from an overlap of 0.50 on"),
        "ap75": ("AP75", f"from 0.75 on: {'boxes' if kind == 'box' else 'masks'} that fit"),
        "aps": ("AP small", f"objects of less than {SMALL} pixels"),
        "apm": ("AP medium", f"{SMALL} to {LARGE}"),
        "apl": ("AP large", f"more than {LARGE}"),
    }


BY_GROUP = {
    "apr": ("AP rare", f"classes that fewer than {COMMON} training images show"),
    "apc": ("AP common", f"{COMMON} to {FREQUENT - 1} training images"),
    "apf": ("AP frequent", f"{FREQUENT} and more"),
}
RECALLS_BY_SIZE = {
    "ars": ("AR small", f"of objects of less than {SMALL} pixels"),
    "arm": ("AR medium", f"{SMALL} to {LARGE}"),
    "arl": ("AR large", f"more than {LARGE}"),
}


def _figures(kind: str, rows: dict[str, tuple[str, str]]) -> tuple[Figure, ...]:
    return tuple(Figure(f"{kind}_{key}", f"{kind} {title}", meaning) for key, (title, meaning) in rows.items())


def _table(kind: str) -> tuple[Figure, ...]:
    every = {figure.key: figure for figure in (*lvis_figures(kind), *coco_figures(kind))}
    order = [figure.key for figure in coco_figures(kind)]
    return tuple(every[key] for key in dict.fromkeys([*order, *every]))


FIGURES = (*_table("box"), *_table("mask"))


@dataclass(frozen=True)
class DetectionErrors:
    """Errors on one image, at a score of 0.5 and an IoU of 0.5."""

    missed: Indices  # into the image's annotated objects
    false: Indices  # into the objects shown

    def __len__(self) -> int:
        return len(self.missed) + len(self.false)


@dataclass(kw_only=True)
class DetectionEvaluation(Evaluation):
    """Evaluation of a detector."""

    table = FIGURES
    report = "resnest.detection.report:detection_report"
    counted = "objects"

    class_ap: dict[str, Floats]  # "box" and perhaps "mask": (K,), NaN for a class without objects
    curves: dict[str, Floats]  # (K, 101): precision at IoU 0.5 and recall 0.00, 0.01, ... 1.00
    objects: Indices  # (K,) annotated, without crowds
    shown: list[Detections]  # (N,) the objects with a score of 0.5 or more
    mistakes: list[DetectionErrors]  # (N,)
    without_masks: bool = False  # the model finds masks, and the data has none
    most: tuple[int, float] | None = None  # the model's detections an image and lowest score, if fewer than LVIS counts

    @property
    def kinds(self) -> list[str]:
        """What was evaluated: boxes, and optionally masks."""
        return [kind for kind in ("box", "mask") if f"{kind}_ap" in self.figures]

    @property
    def headline(self) -> str:
        return ", ".join(
            f"{self.titled(f'{kind}_ap')}, AP50 {percent(self.figures[f'{kind}_ap50'])}" for kind in self.kinds
        )

    @property
    def federated(self) -> bool:
        """Whether the figures are LVIS's."""
        return "box_ap_fixed" in self.figures

    def rows(self) -> list[tuple[Figure, list[float]]]:
        """COCO's figures, or LVIS's, each with the values of all kinds."""
        return [
            (figure, [self.figures[figure.key.replace("box", kind)] for kind in self.kinds])
            for figure in self._table_of_boxes()
        ]

    def _table_of_boxes(self) -> tuple[Figure, ...]:
        if self.federated:
            return lvis_figures("box")
        recalls = (key.removeprefix("box_ar") for key in self.figures if key.startswith("box_ar"))
        limits = [int(limit) for limit in recalls if limit.isdecimal()]
        return (*coco_figures("box", max(limits)), *(group_figures("box") if "box_apr" in self.figures else ()))

    def lines(self) -> list[str]:
        lines = [" " * 11 + "".join(f"{kind:>9}" for kind in self.kinds)]
        for figure, values in self.rows():
            shown = "".join(f"{percent(value):>9}" for value in values)
            lines.append(f"{figure.title.removeprefix('box '):<11}{shown}   {figure.meaning}")
        return [*lines, *([NO_MASKS] if self.without_masks else []), *self._limits()]

    def _limits(self) -> list[str]:
        """What keeps the figures below LVIS's own."""
        if self.most is None:
            return []
        most, score = self.most
        return [
            f"the detector keeps {most} detections an image that score {score:g} or more, and LVIS counts {LIMIT} of"
            f" any score: train it with detector.max_detections={LIMIT} and detector.score_threshold={LOWEST}"
        ]

    @property
    def class_figures(self) -> tuple[Floats, Indices]:
        """Box AP and number of objects of each class."""
        return self.class_ap["box"], self.objects

    def details(self) -> dict[str, Any]:
        class_ap = {kind: self.by_class(values) for kind, values in self.class_ap.items()}
        return {"objects": int(self.objects.sum()), "class_ap": class_ap}

    def worst(self, most: int) -> Indices:
        """Positions of the images with most false negatives and false positives, worst first."""
        counts = np.array([len(errors) for errors in self.mistakes], np.int64)
        order = np.argsort(-counts, kind="stable")
        return order[counts[order] > 0][:most]

    @property
    def qualities(self) -> Floats:
        """(N,) F1 of each picture's objects, at a score of 0.5 and an IoU of 0.5; NaN where neither has any."""
        false, missed = (
            np.array([len(getattr(errors, name)) for errors in self.mistakes], np.float64)
            for name in ("false", "missed")
        )
        right = np.array([len(shown) for shown in self.shown], np.float64) - false
        whole = 2 * right + false + missed
        f1: Floats = np.divide(2 * right, whole, out=np.full(len(whole), np.nan), where=whole > 0)
        return f1


def match_detections(shown: Detections, truth: Objects) -> DetectionErrors:
    """By descending score, each detection matches the free object of its class with highest IoU; crowds match all."""
    overlaps = overlap(shown.boxes, truth.boxes, truth.crowd)
    overlaps *= shown.labels[:, None] == truth.labels[None]
    counts = is_known(shown.labels, truth) & is_exhaustive(shown.labels, truth)  # as false, unless it matches
    free = ~truth.crowd
    false = []
    for index in np.argsort(-shown.scores, kind="stable"):
        row = np.where(free, overlaps[index], 0)
        if len(row) and row.max() >= ENOUGH:
            free[row.argmax()] = False
        elif counts[index] and not (overlaps[index][truth.crowd] >= ENOUGH).any():
            false.append(index)
    return DetectionErrors(np.flatnonzero(free), np.array(false, np.int64))


def overlap(boxes: NDArray[np.float32], others: NDArray[np.float32], crowd: NDArray[np.bool_]) -> Floats:
    """(M, 4), (T, 4) -> IoU (M, T); for a crowd, the fraction of the box inside it."""
    ours, theirs = boxes[:, None].astype(np.float64), others[None].astype(np.float64)
    sides = np.minimum(ours[..., 2:], theirs[..., 2:]) - np.maximum(ours[..., :2], theirs[..., :2])
    shared = np.maximum(sides, 0).prod(-1)  # (M, T)
    area, areas = (np.maximum(box[..., 2:] - box[..., :2], 0).prod(-1) for box in (ours, theirs))
    union = np.where(crowd, area, area + areas - shared)
    overlaps: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlaps


class DetectionScorer:
    """Scorer of a detector: COCO's average precision and recall, and the errors on each image.

    Keeps every object found, by the image's number.
    """

    def __init__(self, samples: DetectionSamples, card: DetectionCard) -> None:
        self.class_names, self.max_detections = card.class_names, card.detector.max_detections
        self.lowest = card.detector.min_score
        self.has_outlines = samples.has_outlines()
        self.frequency, self.federated = samples.frequency, samples.objects.federation is not None
        self.detections: dict[int, Detections] = {}
        self.truths: dict[int, Objects] = {}

    def update(self, index: int, result: Detections, truth: Objects) -> None:
        self.detections[index], self.truths[index] = result, truth

    def merge(self, other: DetectionScorer) -> None:
        self.detections |= other.detections
        self.truths |= other.truths

    def result(self) -> DetectionEvaluation:
        """Raises ResnestError: there is no image, or faster-coco-eval is not installed."""
        if not self.detections:
            raise ResnestError("no image could be used")
        indices = sorted(self.detections)
        masks = self.detections[indices[0]].masks is not None
        metrics = self._metrics(masks=masks and self.has_outlines)
        shown, mistakes = [], []
        counts = np.zeros(len(self.class_names), np.int64)
        for index in indices:
            detections, truth = self.detections[index], self.truths[index]
            metrics.update(truth.image_id if self.federated else index, detections, truth)  # lvis-api: ties by id
            counts += np.bincount(truth.labels[~truth.crowd], minlength=len(self.class_names))
            shown.append(detections.shown())
            mistakes.append(match_detections(shown[-1], truth))
        result = metrics.compute()
        return DetectionEvaluation(
            figures=result.figures,
            class_names=self.class_names,
            indices=np.array(indices, np.int64),
            class_ap=result.class_ap,
            curves=result.curves,
            objects=counts,
            shown=shown,
            mistakes=mistakes,
            without_masks=masks and not self.has_outlines,
            most=(self.max_detections, self.lowest) if self.federated and self._keeps_few() else None,
        )

    def _metrics(self, *, masks: bool) -> CocoMetrics:
        if self.federated:
            return LvisMetrics(self.class_names, self.frequency, masks=masks)
        limit = self.max_detections
        return CocoMetrics(self.class_names, masks=masks, max_detections=limit, frequency=self.frequency)

    def _keeps_few(self) -> bool:
        return self.max_detections < LIMIT or self.lowest > LOWEST
