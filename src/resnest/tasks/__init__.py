"""One class per task: network, loss, what its weights need to be used. Knows no loop and no device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from resnest.data.detection import DetectionSamples
from resnest.data.panoptic import PanopticSamples
from resnest.data.pixels import PixelSamples
from resnest.data.samples import Samples
from resnest.errors import ResnestError
from resnest.recipes.schema import Recipe
from resnest.tasks.classification import ClassificationTask
from resnest.tasks.detection import DetectionTask
from resnest.tasks.multilabel import MultiLabelTask
from resnest.tasks.panoptic import PanopticTask
from resnest.tasks.segmentation import SegmentationTask
from resnest.tasks.task import Task

__all__ = [
    "ClassificationTask",
    "DetectionTask",
    "MultiLabelTask",
    "PanopticTask",
    "SegmentationTask",
    "Task",
    "task_for",
]


class Kind(NamedTuple):
    """A task that needs samples of its own."""

    task: str
    samples: type[Samples]
    build: Callable[[Recipe, Any], Task]
    lacking: str  # what is wrong with a recipe for it and other data
    strange: str  # with another recipe, {task}, and data for it


# First wins: panoptic samples are detection samples too
KINDS = (
    Kind(
        "segmentation",
        PixelSamples,
        SegmentationTask,
        "labels every pixel, and the data has no masks to learn that from: give pictures with a mask each"
        " (docs/segmentation.md), or take another recipe",
        "is for {task}, and the data has masks of classes: take a recipe for segmentation",
    ),
    Kind(
        "panoptic",
        PanopticSamples,
        PanopticTask,
        "learns things and stuff, and the data has no segments: give COCO's panoptic json and PNGs, or take another"
        " recipe",
        "is for {task}, and the data has segments of things and stuff: take a recipe for panoptic segmentation",
    ),
    Kind(
        "detection",
        DetectionSamples,
        DetectionTask,
        "trains a detector, and the data has labels without boxes: give COCO json or Pascal VOC xml, or take a recipe"
        " for classification",
        "trains a classifier, and the data has boxes: take a recipe for detection",
    ),
)


def task_for(recipe: Recipe, samples: Samples) -> Task:
    """The task of the recipe; of a classifier, by the data: several labels an image, or one.

    Raises:
        ResnestError: a recipe of one task with the data of another.
    """
    for kind in KINDS:
        wanted, given = recipe.task == kind.task, isinstance(samples, kind.samples)
        if wanted and given:
            return kind.build(recipe, samples)
        if wanted or given:
            told = kind.lacking if wanted else kind.strange.format(task=recipe.task)
            raise ResnestError(f"recipe {recipe.name!r} {told} (`resnest recipes`)")
    classifier = MultiLabelTask if samples.multi_label else ClassificationTask
    return classifier(recipe, samples.class_names)
