"""The report of a finished run.

write_run_report(run, task, splits, evaluation, seconds)      # -> runs/a/report.html
"""

from __future__ import annotations

import torch

from resnest.data.sources import Splits
from resnest.inference.evaluation_result import Evaluation
from resnest.progress import clock
from resnest.recipes import to_yaml
from resnest.report.history import read_history
from resnest.report.page import Report, RunLog, write_page
from resnest.tasks import Task, load_object
from resnest.training.run import RunDirectory


def write_run_report(run: RunDirectory, task: Task, splits: Splits, evaluation: Evaluation, seconds: float) -> None:
    """Write `report.html` into the run directory."""
    log = RunLog(
        title=run.path.resolve().name,
        metrics=run.read_lines(run.metrics),
        facts=_facts(task, splits, evaluation, seconds),
        recipe=to_yaml(task.recipe),
        bad_images=len(run.read_lines(run.bad_images)),
    )
    report: Report = load_object(evaluation.report)(evaluation, splits.val, read_history(log.metrics, task.monitor))
    write_page(run.path / "report.html", log, report)


def _facts(task: Task, splits: Splits, evaluation: Evaluation, seconds: float) -> dict[str, str]:
    recipe = task.recipe
    changed = ", ".join(f"{key}={value}" for key, value in recipe.model.spec.items())
    with torch.device("meta"):  # counted without making them
        parameters = sum(parameter.numel() for parameter in task.build().parameters())
    return {
        "Recipe": recipe.name,
        **recipe.heads(),
        "Network": f"{recipe.model.name} ({changed})" if changed else recipe.model.name,
        "Parameters": f"{parameters / 1e6:.2f} million",
        "Images": f"{len(splits.train):,} to train on, {evaluation.count:,} to validate on",
        "Size": task.preprocess.describe(),
        "Epochs": str(recipe.train.epochs),
        "Time": clock(seconds),
    }
