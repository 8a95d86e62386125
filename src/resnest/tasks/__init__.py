"""One class per task: network, loss, what its weights need to be used. Knows no loop and no device."""

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


def task_for(recipe: Recipe, samples: Samples) -> Task:
    """The task of the recipe; of a classifier, by the data: several labels an image, or one.

    Raises:
        ResnestError: a recipe of one task with the data of another.
    """
    if recipe.task == "segmentation":
        if not isinstance(samples, PixelSamples):
            raise ResnestError(
                f"recipe {recipe.name!r} labels every pixel, and the data has no masks to learn that from: give"
                " pictures with a mask each (docs/segmentation.md), or take another recipe (`resnest recipes`)"
            )
        return SegmentationTask(recipe, samples)
    if isinstance(samples, PixelSamples):
        raise ResnestError(
            f"recipe {recipe.name!r} is for {recipe.task}, and the data has masks of classes: take a recipe for"
            " segmentation (`resnest recipes`)"
        )
    if recipe.task == "panoptic":
        if not isinstance(samples, PanopticSamples):
            raise ResnestError(
                f"recipe {recipe.name!r} learns things and stuff, and the data has no segments: give COCO's panoptic"
                " json and PNGs, or take another recipe (`resnest recipes`)"
            )
        return PanopticTask(recipe, samples)
    if isinstance(samples, PanopticSamples):
        raise ResnestError(
            f"recipe {recipe.name!r} is for {recipe.task}, and the data has segments of things and stuff: take a recipe"
            " for panoptic segmentation (`resnest recipes`)"
        )
    if recipe.task == "detection":
        if not isinstance(samples, DetectionSamples):
            raise ResnestError(
                f"recipe {recipe.name!r} trains a detector, and the data has labels without boxes: give COCO json or"
                " Pascal VOC xml, or take a recipe for classification (`resnest recipes`)"
            )
        return DetectionTask(recipe, samples)
    if isinstance(samples, DetectionSamples):
        raise ResnestError(
            f"recipe {recipe.name!r} trains a classifier, and the data has boxes: take a recipe for detection"
            " (`resnest recipes`)"
        )
    kind = MultiLabelTask if samples.multi_label else ClassificationTask
    return kind(recipe, samples.class_names)
