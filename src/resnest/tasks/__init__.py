"""One class per task: network, loss, metrics, and what its weights need to be used. Knows no loop and no device."""

from resnest.tasks.classification import ClassificationTask

__all__ = ["ClassificationTask"]
