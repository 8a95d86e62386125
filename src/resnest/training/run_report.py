"""The report of a finished run.

write_run_report(run, task, splits, evaluation, seconds)      # -> runs/a/report.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from resnest.data.sources import Splits
from resnest.inference.detection_outcome import DetectionEvaluation
from resnest.inference.outcome import ClassEvaluation, Evaluation, MultiLabelEvaluation
from resnest.inference.panoptic_outcome import PanopticEvaluation
from resnest.inference.pixel_outcome import PixelEvaluation
from resnest.recipes import to_yaml
from resnest.report.classification import classification_report
from resnest.report.detection import detection_report
from resnest.report.history import History, read_history
from resnest.report.multilabel import multi_label_report
from resnest.report.page import Report, RunLog, write_page
from resnest.report.panoptic import panoptic_report
from resnest.report.segmentation import segmentation_report
from resnest.tasks import Task
from resnest.training.progress import clock
from resnest.training.run import RunDirectory

# (evaluation, validation samples, history) -> report
REPORTS: Mapping[type[Evaluation], Callable[[Any, Any, History], Report]] = {
    ClassEvaluation: classification_report,
    MultiLabelEvaluation: multi_label_report,
    DetectionEvaluation: detection_report,
    PixelEvaluation: segmentation_report,
    PanopticEvaluation: panoptic_report,
}


def write_run_report(run: RunDirectory, task: Task, splits: Splits, evaluation: Evaluation, seconds: float) -> None:
    """Write `report.html` into the run directory."""
    log = RunLog(
        title=run.path.resolve().name,
        metrics=run.read_lines(run.metrics),
        facts=_facts(task, splits, evaluation, seconds),
        recipe=to_yaml(task.recipe),
        bad_images=len(run.read_lines(run.bad_images)),
    )
    report = REPORTS[type(evaluation)](evaluation, splits.val, read_history(log.metrics, task.monitor))
    write_page(run.path / "report.html", log, report)


def _facts(task: Task, splits: Splits, evaluation: Evaluation, seconds: float) -> dict[str, str]:
    recipe = task.recipe
    changed = ", ".join(f"{key}={value}" for key, value in recipe.model.spec.items())
    with torch.device("meta"):  # counted without making them
        parameters = sum(parameter.numel() for parameter in task.build().parameters())
    return {
        "Recipe": recipe.name,
        **task.facts,
        "Network": f"{recipe.model.name} ({changed})" if changed else recipe.model.name,
        "Parameters": f"{parameters / 1e6:.2f} million",
        "Images": f"{len(splits.train):,} to train on, {evaluation.count:,} to validate on",
        "Size": task.preprocess.describe(),
        "Epochs": str(recipe.train.epochs),
        "Time": clock(seconds),
    }
