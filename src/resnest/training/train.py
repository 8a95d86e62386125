"""`train` and `resume`: settings, data, loop, evaluation, weights, report.

result = train("imagenette", data="imagenette128", out="runs/a", settings={"train.epochs": 5})
result.figures["top1"]
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

import resnest
from resnest.data.exclusion import read_exclusion
from resnest.data.samples import describe_counts
from resnest.data.sources import Splits, open_dataset
from resnest.errors import ResnestError, call, parameter
from resnest.files import check_is_not
from resnest.inference.evaluation import Evaluation
from resnest.network.tools import shapes_only
from resnest.progress import clock
from resnest.recipes import Recipe, find_recipe, override, read_recipe, to_yaml
from resnest.recipes.reading import Settings, check_resumable
from resnest.report.charts import read_history
from resnest.report.data_page import write_data_page
from resnest.report.page import Report, RunLog, write_page
from resnest.tasks import Task, check_task, load_object, open_task
from resnest.training.distributed import heartbeats, open_fabric, was_restarted
from resnest.training.loop import Loop, OnEvaluation
from resnest.training.pictures import settle_pictures, with_pictures_of
from resnest.training.run import DATA_PAGE, RunDirectory

# --- The report of a finished run ---


def write_run_report(run: RunDirectory, task: Task, splits: Splits, evaluation: Evaluation, seconds: float) -> None:
    """Write `report.html` into the run directory."""
    log = RunLog(
        title=run.path.resolve().name,
        metrics=run.read_lines(run.metrics),
        facts=_facts(task, splits, evaluation, seconds),
        recipe=to_yaml(task.recipe),
        bad_images=len(run.read_lines(run.bad_images)),
        data_page=DATA_PAGE if (run.path / DATA_PAGE).is_file() else "",
    )
    report: Report = load_object(evaluation.report)(evaluation, splits.val, read_history(log.metrics, task.monitor))
    write_page(run.path / "report.html", log, report)


def _facts(task: Task, splits: Splits, evaluation: Evaluation, seconds: float) -> dict[str, str]:
    recipe = task.recipe
    changed = ", ".join(f"{key}={value}" for key, value in recipe.model.spec.items())
    with shapes_only():  # counted without making them
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


@dataclass(frozen=True)
class TrainingResult:
    """The result of a finished run; figures are fractions, of the best weights."""

    out: Path
    figures: dict[str, float]
    evaluation: Evaluation
    seconds: float
    leads: bool = True  # of several processes, this is the one that speaks


def train(
    recipe: str | Recipe,
    *,
    data: str | Path,
    out: str | Path,
    settings: Settings = (),
    device: str = "auto",
    overwrite: bool = False,
    quiet: bool = True,
    on_evaluation: OnEvaluation | None = None,
) -> TrainingResult:
    """Train a recipe on a data set, and write a run directory.

    Args:
        recipe: a name, a .yaml file, or a `Recipe`.
        settings: changes, as a dictionary of nested or dotted keys, {"train": {"epochs": 5}, "optim.lr": 0.2}, or as
            text, ["train.epochs=5"].
        quiet: no progress on standard error.
        on_evaluation: called after each evaluation with the step and its figures, `f(step, figures)`; where it returns
            True the run ends there, as a finished one with its best weights and its report. Of several processes the
            first one calls it.

    Raises:
        ResnestError: a mistake in settings or data; `out` holds a run already; the disk is full.
        Preempted: stopped by a signal; `resume` continues it.
        NumericalStop: the loss stopped being finite.
    """
    chosen = override(recipe if isinstance(recipe, Recipe) else find_recipe(recipe), settings)
    run = RunDirectory(Path(out))
    if was_restarted() and (run.path / "run.json").exists():
        if any(run.checkpoints.glob("*.pt")):
            return resume(out, recipe=chosen, data=data, device=device, quiet=quiet, on_evaluation=on_evaluation)
        overwrite = True  # it failed before there was anything to go on from
    splits = open_data(data, chosen)
    chosen, splits, said = settle_pictures(chosen, splits)
    if splits.format != "digits":  # which is a word, and no path
        check_is_not(run.path, data, f"the data, and no folder for a run ({parameter('out')})")
    task = open_task(chosen, splits.train, splits.where)
    fabric = open_fabric(chosen, device)
    # what cannot be built fails before a file is written
    loop = Loop(task, splits, run, fabric, quiet=quiet, on_evaluation=on_evaluation)

    def begin() -> None:
        run.hold()
        run.create(overwrite=overwrite)
        # first, as it says that the others are a run's
        run.write_text("run.json", json.dumps(_provenance(data, splits, fabric, task), indent=2) + "\n")
        run.write_text("recipe.yaml", to_yaml(chosen))
        write_data_page(run.path / DATA_PAGE, splits)

    try:
        loop.world.on_rank_zero(begin)
        for line in (*_about(splits, task), *said, f"pictures as the network gets them: {run.path / DATA_PAGE}"):
            loop.say(line)
        return _finish(loop)
    finally:
        run.release()


def _about(splits: Splits, task: Task) -> Iterator[str]:
    """What is said of the data when a run begins."""
    yield f"data: {splits.describe()}"
    yield f"classes: {describe_counts(splits.train, splits.val)}"
    for name, values in task.measured().items():
        yield f"{name}: {', '.join(f'{key} {value:.3g}' for key, value in values.items())}"


def resume(
    out: str | Path,
    *,
    recipe: str | Recipe | None = None,
    data: str | Path | None = None,
    settings: Settings = (),
    device: str = "auto",
    quiet: bool = True,
    on_evaluation: OnEvaluation | None = None,
    go_on: bool = False,
    changed_data: bool = False,
) -> TrainingResult:
    """Resume a stopped run from its newest valid checkpoint; a finished one gives its result again.

    Args:
        recipe: the run's own, if it is given at all.
        data: where the data set is now, if it has moved.
        settings: of those that do not change what is computed, such as {"data.workers": 2}.
        on_evaluation: as for `train`.
        go_on: train further although `on_evaluation` or train.patience ended the run.
        changed_data: train further although images were renamed, replaced by others or relabelled since it began.

    Raises:
        NoValidCheckpoint: nothing to go on from.
        ResnestError: not a run, other settings than it was started with, or the data has changed.
    """
    run = RunDirectory(Path(out))
    account = run.read_provenance()
    before = read_recipe(run.path / "recipe.yaml")
    base = before if recipe is None else recipe if isinstance(recipe, Recipe) else find_recipe(recipe)
    chosen = override(base, settings)
    chosen = with_pictures_of(before, chosen)
    check_resumable(before, chosen, where=str(out))
    splits = open_data(data or account["data"], chosen)
    check_same_data(splits, account, out, changed_data=changed_data)
    task = open_task(chosen, splits.train, splits.where)
    task.kept = account.get("measured", {})
    loop = Loop(task, splits, run, open_fabric(chosen, device), quiet=quiet, on_evaluation=on_evaluation)
    try:
        loop.world.on_rank_zero(run.hold)
        loop.restore(go_on=go_on)
        if changed_data:
            loop.world.on_rank_zero(lambda: run.note(fingerprints=_fingerprints(splits)))
        loop.world.on_rank_zero(lambda: run.write_text("recipe.yaml", to_yaml(chosen)))
        return _finish(loop)
    finally:
        run.release()


def check_same_data(splits: Splits, account: dict[str, Any], out: str | Path, *, changed_data: bool) -> None:
    """Raises ResnestError if a run's data is not what it was; names and labels may differ with `changed_data`."""
    if strange := [name for name in splits.train.class_names if name not in account["class_names"]]:
        raise ResnestError(
            f"{splits.where} is not the data that {out} was trained on: it has the class {strange[0]!r}, which that had"
            " not"
        )
    if list(splits.train.class_names) != account["class_names"] or len(splits.train) != account["train_images"]:
        raise ResnestError(
            f"{splits.where} is not the data that {out} was trained on: {len(splits.train)} training images of"
            f" {len(splits.train.class_names)} classes, then {account['train_images']} of {len(account['class_names'])}"
        )
    before, now = account.get("fingerprints"), _fingerprints(splits)  # runs of earlier versions have none
    if isinstance(before, dict) and before != now and not changed_data:
        other = " and ".join(name for name in now if before.get(name) != now[name])
        raise ResnestError(
            f"{splits.where} has changed since {out} was trained on it: other names, order or labels of its {other}"
            f" images. Give the data as it was ({parameter('data')}), start a new run (model.pretrained=RUN begins with"
            f" its weights), or resume with the data as it is: {call('resume', out, changed_data=True)}"
        )


def _fingerprints(splits: Splits) -> dict[str, str]:
    return {"training": splits.train.fingerprint, "validation": splits.val.fingerprint}


def open_data(data: str | Path, recipe: Recipe) -> Splits:
    """Open the data, with the images that the recipe uses."""
    settings = recipe.data
    splits = open_dataset(
        data,
        format=settings.format,
        val_fraction=settings.val_share,
        seed=recipe.train.seed,
        group=settings.group,
        fold=settings.fold,
        task=recipe.task,
        reading=recipe.reading,
        exif=settings.exif,
        bands=settings.bands,
    )
    check_task(splits.train, recipe.task, splits.where, f"recipe {recipe.name!r}")
    if settings.exclude:
        splits = read_exclusion(Path(settings.exclude)).apply(splits)
    return replace(splits, train=splits.train.for_training(recipe), val=splits.val.for_validation(recipe))


def _finish(loop: Loop) -> TrainingResult:
    with heartbeats(loop.world, seconds=loop.task.recipe.trainer.timeout_seconds):
        evaluation = loop.run_to_end()
        loop.world.on_rank_zero(lambda: write_run_report(loop.run, loop.task, loop.splits, evaluation, loop.seconds))
        loop.world.shutdown()
    return TrainingResult(loop.run.path, loop.best_figures, evaluation, loop.seconds, loop.world.is_rank_zero)


def _provenance(data: str | Path, splits: Splits, fabric: Fabric, task: Task) -> dict[str, Any]:
    """Provenance of a run: what is needed to resume it and to interpret its figures."""
    device = fabric.device
    return {
        "data": str(Path(data).resolve()) if Path(data).exists() else splits.where,  # of the hub's: with its commit
        "format": splits.format,
        "train_images": len(splits.train),
        "val_images": len(splits.val),
        "held_out_of": len(splits.unsplit) if splits.unsplit is not None else 0,  # images; 0: the data has its own part
        "fingerprints": _fingerprints(splits),
        "class_names": list(splits.train.class_names),
        "monitor": task.monitor,
        **({"measured": measured} if (measured := task.measured()) else {}),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "processes": fabric.world_size,
        "threads": torch.get_num_threads(),
        "versions": {"resnest": resnest.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }
