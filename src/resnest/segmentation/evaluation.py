"""Evaluation of a segmenter: IoU and Dice, confusion matrix, distances of outlines, and the scorers that count pixels.

Of a multi-label one every class is compared by itself (`MaskEvaluation`), without a confusion matrix.

result.figures["miou"], result.headline, result.class_iou, result.class_dice, result.confusion
for k in result.worst(12): result.indices[k], result.worst_maps[k].labels
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.data.samples import Samples
from resnest.figures import Figure, percent
from resnest.inference.evaluation import Evaluation, Floats, Indices, WorstPictures, lowest
from resnest.segmentation.card import IGNORED, SegmentationCard
from resnest.segmentation.mask_stack import MaskStack
from resnest.segmentation.metrics import (
    Counts,
    Fractions,
    MaskMetrics,
    PixelMetrics,
    dice_coefficient,
    intersection_over_union,
    overlap_of_confusion,
    precision_and_recall,
)
from resnest.segmentation.result import LabelMap
from resnest.segmentation.surface import SurfaceFigures, SurfaceMetrics

OVERLAPS = (
    Figure("dice", "Dice", "F1 score of pixels, mean of the classes"),
    Figure("iou_micro", "micro IoU", "of the pixels of all classes together"),
    Figure("dice_micro", "micro Dice", "of the pixels of all classes together"),
    Figure("iou_image", "IoU by picture", "mean of a picture's classes, then of the pictures"),
    Figure("dice_image", "Dice by picture", "mean of a picture's classes, then of the pictures"),
)
MIOU = Figure("miou", "mIoU", "intersection over union, mean of the classes")
FIGURES = (
    MIOU,
    Figure("pixel_accuracy", "pixel accuracy", "of all pixels that count"),
    Figure("mean_accuracy", "mean accuracy", "of each class's pixels, mean of classes"),
    *OVERLAPS,
)
SURFACES = (
    Figure("hausdorff95", "Hausdorff-95", "pixels, mean of the classes", higher_is_better=False),
    Figure("surface_dice", "surface Dice", "share of the outlines within the tolerance, mean of the classes"),
)


@dataclass(kw_only=True)
class OverlapEvaluation(Evaluation):
    """Evaluation of a segmenter, of whatever kind its masks are."""

    counted = "pixels"

    class_iou: Fractions  # (K,), NaN for a class that is neither true nor predicted
    image_iou: Fractions  # (N,) mean over classes, of each picture
    worst_maps: dict[int, Any]  # by position: the worst pictures' results
    surface: SurfaceFigures | None = None  # if asked for
    tolerance: float = 0.0  # of the surface Dice, pixels

    @property
    def overlap(self) -> Counts:
        """(K, 3) pixels that are true and predicted, predicted, true."""
        raise NotImplementedError

    @property
    def class_dice(self) -> Fractions:
        """(K,), NaN for a class that is neither true nor predicted."""
        return dice_coefficient(self.overlap)

    def lines(self) -> list[str]:
        known, pictures = int(np.isfinite(self.class_iou).sum()), int(np.isfinite(self.image_iou).sum())
        absent = len(self.class_names) - known
        of_classes = f"mean over {known} classes" + (f", without {absent} neither true nor predicted" if absent else "")
        of_pictures = (
            f"mean over {pictures} of {len(self.image_iou)} pictures, of the classes true or predicted in each"
        )
        details = {"miou": of_classes, "dice": of_classes, "iou_image": of_pictures, "dice_image": of_pictures}
        lines = [
            f"{figure.title:<15}  {percent(self.figures[figure.key]):>7}   {details.get(figure.key, figure.meaning)}"
            for figure in self.table
        ]
        return lines + (self._surface_lines(self.surface) if self.surface else [])

    def _surface_lines(self, surface: SurfaceFigures) -> list[str]:
        distance, undefined = self.figures["hausdorff95"], int(surface.undefined.sum())
        left_out = f", without {undefined} of classes only true or only predicted in a picture" if undefined else ""
        shown = "-" if np.isnan(distance) else f"{distance:.2f} px"
        dice = percent(self.figures["surface_dice"])
        return [
            f"{'Hausdorff-95':<15}  {shown:>7}   mean of the pictures, then of the classes{left_out}",
            f"{'surface Dice':<15}  {dice:>7}   share of the outlines within {self.tolerance:g} pixels",
        ]

    @property
    def class_figures(self) -> tuple[Floats, Indices]:
        """IoU and number of pixels of each class."""
        return self.class_iou, self.overlap[:, 2]

    def details(self) -> dict[str, Any]:
        absent = [name for name, iou in zip(self.class_names, self.class_iou, strict=True) if np.isnan(iou)]
        found: dict[str, Any] = {"class_dice": self.by_class(self.class_dice), "absent_classes": absent}
        if self.surface:
            found["surface"] = {
                "tolerance": self.tolerance,
                **{name: self.by_class(values) for name, values in self.surface._asdict().items()},
            }
        return found

    def worst(self, most: int) -> Indices:
        """Positions of the pictures with the lowest mean IoU, worst first; none without a mistake."""
        return lowest(self.image_iou, most)

    @property
    def qualities(self) -> Floats:
        """(N,) Mean IoU of each picture alone."""
        return self.image_iou


@dataclass(kw_only=True)
class PixelEvaluation(OverlapEvaluation):
    """Evaluation of a segmenter with one class a pixel."""

    table = FIGURES
    report = "resnest.segmentation.report:segmentation_report"

    confusion: Counts  # (K, K) pixels, rows: truth
    worst_maps: dict[int, LabelMap]

    @property
    def overlap(self) -> Counts:
        return overlap_of_confusion(self.confusion)

    @property
    def headline(self) -> str:
        return f"{self.titled('miou')}, {self.titled('pixel_accuracy')}"

    def details(self) -> dict[str, Any]:
        pixels = self.confusion.sum(1)
        accuracy = np.where(pixels > 0, self.confusion.diagonal() / pixels.clip(1), np.nan)
        return {"pixels": int(pixels.sum()), "class_accuracy": self.by_class(accuracy), **super().details()}


@dataclass(kw_only=True)
class MaskEvaluation(OverlapEvaluation):
    """Evaluation of a multi-label segmenter: a yes or no for every class of a pixel."""

    table = (MIOU, *OVERLAPS)
    report = "resnest.segmentation.mask_stack_report:mask_stack_report"

    pixels: Counts  # (K, 3) that are true and predicted, predicted, true
    known: Counts  # (K,) that count
    worst_maps: dict[int, MaskStack]

    @property
    def overlap(self) -> Counts:
        return self.pixels

    @property
    def headline(self) -> str:
        return f"{self.titled('miou')}, {self.titled('dice')}"

    def details(self) -> dict[str, Any]:
        precision, recall = precision_and_recall(self.pixels)
        figures = {"class_precision": self.by_class(precision), "class_recall": self.by_class(recall)}
        return {"pixels": int(self.known.sum()), **figures, **super().details()}


class OverlapScorer:
    """What scorers of a segmenter have in common; pixels are counted in integers."""

    metrics: PixelMetrics | MaskMetrics

    def __init__(self, card: SegmentationCard) -> None:
        self.class_names = card.class_names
        self.worst = WorstPictures()
        self.surface: SurfaceMetrics | None = None
        if card.surface is not None:
            self.surface = SurfaceMetrics(len(card.class_names), tolerance=card.surface)

    def merge(self, other: OverlapScorer) -> None:
        self.metrics.merge(other.metrics)
        self.worst.merge(other.worst)
        if self.surface and other.surface:
            self.surface.merge(other.surface)

    def _overlaps(self) -> dict[str, Any]:
        """Fields of an `OverlapEvaluation`."""
        surface = self.surface
        return {
            "figures": {**self.metrics.compute(), **(surface.compute() if surface else {})},
            "class_names": self.class_names,
            "indices": self.worst.indices,
            "class_iou": intersection_over_union(self.metrics.overlap),
            "image_iou": self.worst.qualities,
            "worst_maps": self.worst.results,
            "surface": surface.by_class() if surface else None,
            "tolerance": surface.tolerance if surface else 0.0,
        }


class SegmentationScorer(OverlapScorer):
    """Scorer of a segmenter: IoU, Dice and accuracies over all pixels and of each picture, distances if asked for."""

    def __init__(self, samples: Samples, card: SegmentationCard) -> None:
        super().__init__(card)
        self.metrics: PixelMetrics = PixelMetrics(len(card.class_names))

    def update(self, index: int, result: LabelMap, truth: NDArray[np.uint8]) -> None:
        self.worst.add(index, self.metrics.update(result.labels, truth), result)
        if self.surface:
            classes = np.arange(len(self.class_names), dtype=np.uint8)[:, None, None]
            masks = np.where(truth == IGNORED, IGNORED, truth == classes).astype(np.uint8)
            self.surface.update(result.labels == classes, masks)

    def result(self) -> PixelEvaluation:
        return PixelEvaluation(confusion=self.metrics.confusion, **self._overlaps())


class MaskScorer(OverlapScorer):
    """Scorer of a multi-label segmenter: IoU and Dice over all pixels and of each picture, distances if asked for."""

    def __init__(self, samples: Samples, card: SegmentationCard) -> None:
        super().__init__(card)
        self.metrics: MaskMetrics = MaskMetrics(len(card.class_names))

    def update(self, index: int, result: MaskStack, truth: NDArray[np.uint8]) -> None:
        """Truth is (K, H, W): 0, 1, 255."""
        self.worst.add(index, self.metrics.update(result.masks, truth), result)
        if self.surface:
            self.surface.update(result.masks, truth)

    def result(self) -> MaskEvaluation:
        return MaskEvaluation(pixels=self.metrics.overlap, known=self.metrics.known, **self._overlaps())


def scorer(samples: Samples, card: SegmentationCard) -> SegmentationScorer | MaskScorer:
    """The scorer of a card's results."""
    return (MaskScorer if card.segmenter.multi_label else SegmentationScorer)(samples, card)
