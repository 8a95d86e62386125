"""`resnest train` and `resnest demo`: a recipe, a data set, a run directory."""

from __future__ import annotations

import json
import os
import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resnest.cli.words import DATA_HELP
from resnest.errors import ResnestError, parameter

if TYPE_CHECKING:
    from resnest.recipes import Recipe

EXCLUDE_HELP = "Leave out the pictures of a list, such as the decisions of `resnest doctor --html` (.csv, .txt)."
FOLDS_HELP = "Cross-validation: a run for each of N folds in --out, then mean and spread. The same command goes on."

# --- `resnest train`: a recipe, a data set, a run directory ---


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe's name (see `resnest recipes`) or a YAML file.")
    ] = None,
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory to write; runs/RECIPE if not given.")] = None,
    set: Annotated[list[str] | None, typer.Option(metavar="A.B=C", help="Change a setting; may be repeated.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Resume a stopped run.")] = None,
    go_on: Annotated[bool, typer.Option("--go-on", help="With --resume: although train.patience ended it.")] = False,
    changed_data: Annotated[
        bool, typer.Option("--changed-data", help="With --resume: although images have other names or labels now.")
    ] = False,
    exclude: Annotated[Path | None, typer.Option(metavar="FILE", help=EXCLUDE_HELP)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run in --out.")] = False,
    folds: Annotated[int | None, typer.Option(metavar="N", help=FOLDS_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --folds: figures as JSON, fractions 0..1.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train a network; Ctrl-C saves, and `--resume RUN` resumes."""
    if as_json and folds is None:
        raise ResnestError("--json goes with --folds; of one run, `resnest evaluate --json` prints the figures")
    if folds is not None and (resume or go_on or changed_data):
        raise ResnestError("--folds goes on by itself, with the command that began: leave out --resume and its options")
    settings = [*(set or []), *([f"data.exclude={json.dumps(str(exclude.resolve()))}"] if exclude else [])]
    if resume is not None:
        if out or overwrite:
            raise ResnestError("--resume RUN goes on in the run's own directory: leave out --out and --overwrite")
        from resnest.training.train import resume as resumed

        result = resumed(
            resume, recipe=recipe, data=data, settings=settings, device=device, quiet=False, go_on=go_on,
            changed_data=changed_data,
        )  # fmt: skip
    else:
        for option, given in (("--go-on", go_on), ("--changed-data", changed_data)):
            if given:
                raise ResnestError(f"{option} goes with --resume RUN")
        missing = [name for name, value in (("RECIPE", recipe), ("--data", data)) if value is None]
        if missing or recipe is None or data is None:
            raise ResnestError(
                f"{' and '.join(missing)} missing, as in: resnest train imagenette --data photos --out runs/a"
            )
        from resnest.recipes import find_recipe, override

        chosen = override(find_recipe(recipe), settings)  # before torch is loaded: a typo answers at once
        if folds is not None:
            _train_folds(chosen, data, out, folds, device=device, overwrite=overwrite, as_json=as_json)
            return
        from resnest.training.train import train as run

        result = run(
            chosen, data=data, out=out or _free_directory(chosen.name), device=device, overwrite=overwrite, quiet=False
        )
    if result.leads:
        typer.echo(f"best {result.evaluation.headline}")
        typer.echo(f"report: {result.out / 'report.html'}")


def _train_folds(
    recipe: Recipe, data: str, out: Path | None, folds: int, *, device: str, overwrite: bool, as_json: bool
) -> None:
    from resnest.training.folds import PAGE, train_folds

    where = out or Path("runs") / f"{recipe.name}-{folds}-folds"  # always the same, so that the command goes on
    result = train_folds(recipe, data=data, out=where, folds=folds, device=device, overwrite=overwrite, quiet=False)
    typer.echo(json.dumps(result.to_dict(), indent=2) if as_json else result.to_text())
    typer.echo(f"page: {where / PAGE}", err=as_json)


def _free_directory(name: str) -> Path:
    """runs/NAME, or runs/NAME-2 and so on if that exists. Processes started together all choose runs/NAME."""
    if "RANK" in os.environ or "SLURM_PROCID" in os.environ:
        return Path("runs") / name
    candidates = (Path("runs", f"{name}-{number}" if number > 1 else name) for number in count(1))
    return next(path for path in candidates if not path.exists())


# --- `resnest demo`: train, evaluate and predict on real data that needs no download ---


def demo(
    out: Annotated[Path, typer.Option(help="Run directory to write; an earlier demo in it is replaced.")] = Path(
        "runs/demo"
    ),
) -> None:
    """Train, evaluate and predict on handwritten digits, in a minute.

    Trains a small network, evaluates it on digits held out, predicts some, writes a report.
    """
    started = time.monotonic()
    from resnest.cli.predict import predict
    from resnest.data.sources import open_dataset
    from resnest.inference.evaluation import evaluate
    from resnest.training.run import RunDirectory
    from resnest.training.train import train

    before = RunDirectory(out)
    if before.is_run() and before.read_provenance()["data"] != "digits":
        raise ResnestError(f"{out} holds a run on other data than the demo's: choose another {parameter('out')}")
    typer.echo("1. training a small ResNeSt on scikit-learn's handwritten digits")
    train("digits", data="digits", out=out, overwrite=True, quiet=False)
    typer.echo("2. evaluating it on the digits that were held out")
    result = evaluate(out, "digits")
    typer.echo(f"   {result.headline} of {result.count}")
    typer.echo("3. predicting three of them, as for pictures of your own")
    pictures = out / "pictures"
    pictures.mkdir(exist_ok=True)
    held_back = open_dataset("digits").val
    chosen = [pictures / f"digit-{held_back.keys[index]}.png" for index in range(3)]
    for index, path in enumerate(chosen):
        held_back.decode(index).resize((64, 64)).save(path)
    predict(str(out), [str(path) for path in chosen], top=2, draw=out / "drawn")
    typer.echo(f"report: {out / 'report.html'}   ({time.monotonic() - started:.0f} s)")
    typer.echo("next:   resnest train imagenette --data YOUR_PHOTOS --out runs/a")
