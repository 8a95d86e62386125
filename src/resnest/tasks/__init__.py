"""One class per task: network, loss, what its weights need to be used. Knows no loop and no device."""

from resnest.data.detection import DetectionSamples
from resnest.data.samples import Samples
from resnest.errors import ResnestError
from resnest.recipes.schema import Recipe
from resnest.tasks.classification import ClassificationTask
from resnest.tasks.detection import DetectionTask
from resnest.tasks.multilabel import MultiLabelTask
from resnest.tasks.task import Task

__all__ = ["ClassificationTask", "DetectionTask", "MultiLabelTask", "Task", "task_for"]


def task_for(recipe: Recipe, samples: Samples) -> Task:
    """The task of the recipe; of a classifier, by the data: several labels an image, or one.

    Raises:
        ResnestError: a recipe of one task with the data of another.
    """
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
