"""One class per task: network, loss, what its weights need to be used. Knows no loop and no device."""

from resnest.data.samples import Samples
from resnest.recipes.schema import Recipe
from resnest.tasks.classification import ClassificationTask
from resnest.tasks.multilabel import MultiLabelTask

__all__ = ["ClassificationTask", "MultiLabelTask", "task_for"]


def task_for(recipe: Recipe, samples: Samples) -> ClassificationTask:
    """The task that goes with the data: several labels an image, or one."""
    kind = MultiLabelTask if samples.multi_label else ClassificationTask
    return kind(recipe, samples.class_names)
