"""The report of a finished run: gathers what `report/` draws.

write_run_report(run, task, splits, evaluation, seconds)      # -> runs/a/report.html
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from resnest.data.samples import Samples
from resnest.data.sources import Splits
from resnest.detection.data import DetectionSamples
from resnest.inference.detection_outcome import DetectionEvaluation
from resnest.inference.outcome import ClassEvaluation, Evaluation, MultiLabelEvaluation
from resnest.inference.panoptic_outcome import PanopticEvaluation
from resnest.inference.pixel_outcome import PixelEvaluation
from resnest.panoptic.data import PanopticSamples
from resnest.progress import clock
from resnest.recipes import to_yaml
from resnest.report import (
    ClassificationReport,
    ClassRow,
    LabelMistake,
    Mistake,
    MultiLabelReport,
    write_detection_report,
    write_multi_label_report,
    write_panoptic_report,
    write_report,
    write_segmentation_report,
)
from resnest.segmentation.data import PixelSamples
from resnest.tasks import Task
from resnest.training.detection_summary import detection_report
from resnest.training.panoptic_summary import panoptic_report
from resnest.training.pixel_summary import segmentation_report
from resnest.training.run import RunDirectory

MOST_MISTAKES = 24  # pictures on the page


def write_run_report(run: RunDirectory, task: Task, splits: Splits, evaluation: Evaluation, seconds: float) -> None:
    """Write `report.html` into the run directory."""
    path, told = run.path / "report.html", _told(run, task, _facts(task, splits, evaluation, seconds))
    if isinstance(evaluation, MultiLabelEvaluation):
        write_multi_label_report(path, _multi_label_report(evaluation, splits.val, told))
    elif isinstance(evaluation, ClassEvaluation):
        write_report(path, _class_report(evaluation, splits.val, told))
    elif isinstance(evaluation, DetectionEvaluation) and isinstance(splits.val, DetectionSamples):
        write_detection_report(path, detection_report(evaluation, splits.val, told, task))
    elif isinstance(evaluation, PixelEvaluation) and isinstance(splits.val, PixelSamples):
        write_segmentation_report(path, segmentation_report(evaluation, splits.val, told))
    elif isinstance(evaluation, PanopticEvaluation) and isinstance(splits.val, PanopticSamples):
        write_panoptic_report(path, panoptic_report(evaluation, splits.val, told))


def _told(run: RunDirectory, task: Task, facts: dict[str, str]) -> dict[str, Any]:
    """What every page holds."""
    return {
        "title": run.path.resolve().name,
        "metrics": run.read_lines(run.metrics),
        "facts": facts,
        "recipe": to_yaml(task.recipe),
        "bad_images": len(run.read_lines(run.bad_images)),
    }


def _class_report(evaluation: ClassEvaluation, val: Samples, told: dict[str, Any]) -> ClassificationReport:
    names = evaluation.class_names
    mistakes = [
        Mistake(
            image=val.decode(int(evaluation.indices[place])),
            name=val.keys[int(evaluation.indices[place])],
            truth=names[evaluation.labels[place]],
            predicted=names[evaluation.predicted[place]],
            score=float(evaluation.scores[place]),
            truth_score=float(evaluation.truth_scores[place]),
        )
        for place in evaluation.worst(MOST_MISTAKES)
    ]
    return ClassificationReport(confusion=evaluation.confusion, class_names=names, mistakes=mistakes, **told)


def _multi_label_report(evaluation: MultiLabelEvaluation, val: Samples, told: dict[str, Any]) -> MultiLabelReport:
    recall, precision = evaluation.recall_and_precision()
    classes = [
        ClassRow(
            name=name,
            images=int(evaluation.labels[:, k].sum()),
            average_precision=float(evaluation.areas[k]),
            recall=float(recall[k]),
            precision=float(precision[k]),
        )
        for k, name in enumerate(evaluation.class_names)
    ]
    return MultiLabelReport(
        figures=evaluation.figures,
        classes=classes,
        images=evaluation.count,
        errors=int((evaluation.given != evaluation.labels).any(1).sum()),
        mistakes=[_label_mistake(evaluation, val, int(place)) for place in evaluation.worst(MOST_MISTAKES)],
        **told,
    )


def _label_mistake(evaluation: MultiLabelEvaluation, val: Samples, place: int) -> LabelMistake:
    index, scores = int(evaluation.indices[place]), evaluation.scores[place]
    given, true = evaluation.given[place], evaluation.labels[place]
    order = np.argsort(-scores, kind="stable")  # the likeliest first

    def scored(marks: NDArray[np.bool_]) -> list[tuple[str, float]]:
        return [(evaluation.class_names[k], float(scores[k])) for k in order if marks[k]]

    return LabelMistake(
        image=val.decode(index),
        name=val.keys[index],
        wrong=scored(given & ~true),
        missed=scored(true & ~given)[::-1],
        right=[name for name, _ in scored(given & true)],
    )


def _facts(task: Task, splits: Splits, evaluation: Evaluation, seconds: float) -> dict[str, str]:
    recipe = task.recipe
    changed = ", ".join(f"{key}={value}" for key, value in recipe.model.spec.items())
    return {
        "Recipe": recipe.name,
        **recipe.heads(),
        "Network": f"{recipe.model.name} ({changed})" if changed else recipe.model.name,
        "Parameters": f"{_parameters(task) / 1e6:.2f} million",
        "Images": f"{len(splits.train):,} to train on, {evaluation.count:,} to validate on",
        "Size": task.preprocess.describe(),
        "Epochs": str(recipe.train.epochs),
        "Time": clock(seconds),
    }


def _parameters(task: Task) -> int:
    """Counted without making them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in task.build().parameters())
