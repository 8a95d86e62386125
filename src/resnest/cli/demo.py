"""`resnest demo`: train, evaluate and predict on real data that needs no download."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer


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
    from resnest.training.train import train

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
