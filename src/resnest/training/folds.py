"""Cross-validation: one run for each fold, and mean and spread of their figures.

    result = train_folds("imagenette", data="photos", out="runs/cv", folds=5)
    result.summary["top1"].mean, result.summary["top1"].std

OUT/fold-0 to OUT/fold-4 are runs as any other, with `data.fold`. The same call goes on after an interruption: finished
folds are kept, and the one that was interrupted is resumed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from resnest.errors import Preempted, ResnestError, parameter
from resnest.files import (
    CARD_NAME,
    WEIGHTS_NAME,
    WRITTEN,
    check_is_not,
    check_replaceable,
    write_atomically,
    write_errors,
)
from resnest.progress import say
from resnest.recipes import Recipe, find_recipe, override, read_recipe
from resnest.recipes.reading import Settings, check_resumable
from resnest.report.charts import read_history
from resnest.report.folds_page import FoldRow, Spread, show_figure, write_folds_page
from resnest.runtime.card import ModelCard
from resnest.training.pictures import with_pictures_of
from resnest.training.run import RunDirectory
from resnest.training.train import check_same_data, open_data, resume, train

FIGURES, PAGE = "folds.json", "folds.html"


@dataclass(frozen=True)
class FoldsResult:
    """The folds of a cross-validation; figures are those of each fold's best weights on its held-out images."""

    out: Path
    recipe: str
    monitor: str  # key of the figure that decides which weights are best
    folds: Sequence[FoldRow]
    titles: Mapping[str, str]  # of the figures, by key, in their order
    summary: Mapping[str, Spread]  # of the figures that every fold has

    def to_dict(self) -> dict[str, Any]:
        return {
            "by": WRITTEN,
            "recipe": self.recipe,
            "monitor": self.monitor,
            "folds": [
                {"run": row.name, "train_images": row.train, "val_images": row.val, "figures": dict(row.figures)}
                for row in self.folds
            ],
            "summary": {key: asdict(spread) for key, spread in self.summary.items()},
        }

    def to_text(self) -> str:
        """A table: a row for each fold, then mean, standard deviation, minimum and maximum."""
        rows = [["", "images", *self.titles.values()]]
        for row in self.folds:
            rows.append([row.name, str(row.val), *(show_figure(key, row.figures[key]) for key in self.titles)])
        for name in ("mean", "std", "min", "max"):
            rows.append([name, "", *(show_figure(key, getattr(self.summary[key], name)) for key in self.titles)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        aligned = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
        return "\n".join("  ".join(cells).rstrip() for cells in aligned)


def train_folds(
    recipe: str | Recipe,
    *,
    data: str | Path,
    out: str | Path,
    folds: int = 5,
    settings: Settings = (),
    device: str = "auto",
    overwrite: bool = False,
    quiet: bool = True,
) -> FoldsResult:
    """Train a run for each fold, one after the other, and write OUT/folds.json and OUT/folds.html.

    Args:
        out: a folder for the runs; where it has some of them, finished ones are kept and others go on.
        folds: 2 or more; with `data.group`, no more than there are groups.
        settings: as for `train`, except `data.fold`.
        overwrite: train all folds anew.

    Raises:
        ResnestError: as `train`; runs there have other settings, or were trained on other data; several processes.
        Preempted: stopped by a signal; the same call goes on.
    """
    chosen = override(recipe if isinstance(recipe, Recipe) else find_recipe(recipe), settings)
    folder = Path(out)
    _check(chosen, folder, data, folds)
    rows: list[FoldRow] = []
    for number in range(folds):
        own = override(chosen, {"data.fold": f"{number}/{folds}"})
        run = RunDirectory(folder / f"fold-{number}")
        if not quiet:
            say(f"fold {number} of {folds}: {run.path}")
        try:
            _train_fold(own, run, data, device=device, overwrite=overwrite, quiet=quiet)
        except Preempted as stop:
            told = f"stopped in fold {number} of {folds}, everything is saved; the same command goes on"
            raise Preempted(told) from stop
        rows.append(_row(run))
    result = _result(folder, chosen, rows)
    with write_errors(folder / FIGURES):
        write_atomically(folder / FIGURES, (json.dumps(result.to_dict(), indent=2) + "\n").encode())
        facts = {"Recipe": chosen.name, "Data": str(data), **_facts(chosen)}
        write_folds_page(folder / PAGE, rows, result.summary, result.titles, monitor=result.monitor, facts=facts)
    return result


def _check(recipe: Recipe, folder: Path, data: str | Path, folds: int) -> None:
    if folds < 2:
        raise ResnestError(f"{parameter('folds', folds)}: expected 2 or more")
    if recipe.data.fold is not None:
        raise ResnestError(f"{parameter('folds', folds)} trains every fold: leave out data.fold={recipe.data.fold}")
    processes = max(int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "SLURM_NTASKS"))
    if max(processes, recipe.trainer.devices or 1, recipe.trainer.num_nodes) > 1:
        raise ResnestError(
            f"{parameter('folds', folds)} trains in one process: start a run for each fold, with data.fold=0/{folds} to"
            f" {folds - 1}/{folds} and {parameter('out')} {folder}/fold-0 to fold-{folds - 1}; this command, without"
            " further processes, then sums them up"
        )
    check_is_not(folder, data, f"the data, and no folder for runs ({parameter('out')})")
    if folder.exists() and RunDirectory(folder).is_run():
        raise ResnestError(f"{folder} is a run, and no folder for several: choose another {parameter('out')}")
    for name in (FIGURES, PAGE):
        check_replaceable(folder / name)


def _train_fold(
    recipe: Recipe, run: RunDirectory, data: str | Path, *, device: str, overwrite: bool, quiet: bool
) -> None:
    """Train it, go on with it, or leave it if it is finished."""
    begun = not overwrite and run.path.is_dir() and run.is_run()
    before = read_recipe(run.path / "recipe.yaml") if begun else recipe
    recipe = with_pictures_of(before, recipe)
    # a trial of a few steps is finished, too, and goes on without that limit
    if begun and is_finished(run) and before.train.max_steps == recipe.train.max_steps:
        check_resumable(before, recipe, where=str(run.path))
        check_same_data(open_data(data, recipe), run.read_provenance(), run.path, changed_data=False)
        if not quiet:
            say(f"it is finished: {run.path / 'report.html'}")
    elif begun and any(run.checkpoints.glob("*.pt")):
        resume(run.path, recipe=recipe, data=data, device=device, quiet=quiet)
    else:  # what was killed before its first checkpoint has nothing to go on from
        train(recipe, data=data, out=run.path, device=device, overwrite=overwrite or begun, quiet=quiet)


def is_finished(run: RunDirectory) -> bool:
    """Whether it has its report, which is written last."""
    return all((run.path / name).is_file() for name in (CARD_NAME, WEIGHTS_NAME, "report.html"))


def _row(run: RunDirectory) -> FoldRow:
    account, card = run.read_provenance(), ModelCard.read(run.path)
    history = read_history(run.read_lines(run.metrics), account["monitor"])
    return FoldRow(run.path.name, account["train_images"], account["val_images"], card.figures, history)


def _facts(recipe: Recipe) -> dict[str, str]:
    settings = recipe.data
    return {"Held out together": settings.group or "nothing", "Epochs": str(recipe.train.epochs)}


def _result(folder: Path, recipe: Recipe, rows: Sequence[FoldRow]) -> FoldsResult:
    card = ModelCard.read(folder / rows[0].name)
    known = [key for key in (*card.figure_titles, "loss") if all(key in row.figures for row in rows)]
    summary = {key: Spread.of([row.figures[key] for row in rows]) for key in known}
    monitor = rows[0].history.monitor
    if monitor not in summary:
        raise ResnestError(f"{folder}: {monitor} could not be measured in every fold; the folds' reports say why")
    titles = {**card.figure_titles, "loss": "loss"}
    return FoldsResult(folder, recipe.name, monitor, rows, {key: titles[key] for key in known}, summary)
