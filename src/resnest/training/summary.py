"""The report of a finished run: gathers what `report/` draws.

write_run_report(run, task, splits, evaluation, seconds)      # -> runs/a/report.html
"""

from __future__ import annotations

from resnest.cost import parameters
from resnest.data.sources import Splits
from resnest.inference.evaluation import Evaluation
from resnest.recipes import to_yaml
from resnest.report import ClassificationReport, Mistake, write_report
from resnest.tasks import ClassificationTask
from resnest.training.progress import clock
from resnest.training.run import RunDirectory

MOST_MISTAKES = 24  # pictures on the page


def write_run_report(
    run: RunDirectory, task: ClassificationTask, splits: Splits, evaluation: Evaluation, seconds: float
) -> None:
    """Write `report.html` into the run directory."""
    names = task.class_names
    mistakes = [
        Mistake(
            image=splits.val.decode(int(evaluation.indices[place])),
            name=splits.val.keys[int(evaluation.indices[place])],
            truth=names[evaluation.labels[place]],
            predicted=names[evaluation.predicted[place]],
            score=float(evaluation.scores[place]),
            truth_score=float(evaluation.truth_scores[place]),
        )
        for place in evaluation.worst(MOST_MISTAKES)
    ]
    page = ClassificationReport(
        title=run.path.resolve().name,
        metrics=run.read_lines(run.metrics),
        confusion=evaluation.confusion,
        class_names=names,
        mistakes=mistakes,
        facts=_facts(task, splits, evaluation, seconds),
        recipe=to_yaml(task.recipe),
        bad_images=len(run.read_lines(run.bad_images)),
    )
    write_report(run.path / "report.html", page)


def _facts(task: ClassificationTask, splits: Splits, evaluation: Evaluation, seconds: float) -> dict[str, str]:
    recipe = task.recipe
    changed = ", ".join(f"{key}={value}" for key, value in recipe.model.spec.items())
    return {
        "Recipe": recipe.name,
        "Network": f"{recipe.model.name} ({changed})" if changed else recipe.model.name,
        "Parameters": f"{parameters(task.spec, num_classes=len(task.class_names)) / 1e6:.2f} million",
        "Images": f"{len(splits.train):,} to train on, {evaluation.count:,} to validate on",
        "Size": f"{recipe.data.preprocess.size} pixels",
        "Epochs": str(recipe.train.epochs),
        "Time": clock(seconds),
    }
