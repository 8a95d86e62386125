"""`resnest evaluate`: a model's figures on labelled images."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from resnest.inference import Evaluation


def evaluate(
    model: Annotated[str, typer.Argument(help="Run directory or checkpoint file.")],
    data: Annotated[str, typer.Option(help="Folder, .zip, .npz or .csv with images, or 'digits'.")],
    split: Annotated[str, typer.Option(help="val, train, or all of a data set without parts.")] = "val",
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON, fractions 0..1.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
) -> None:
    """Evaluate a model: top-1, top-5, loss, accuracy of each class."""
    from resnest.cli.bars import counting
    from resnest.inference import evaluate as run

    with counting("evaluating") as bar:
        result = run(
            model,
            data,
            split=split,
            device=device,
            batch_size=batch_size,
            on_open=lambda samples, where: bar.start(len(samples), where),
            on_batch=bar.advance,
        )
    for key, reason in result.bad:
        typer.echo(f"skipped: {key}: {reason}", err=True)
    if as_json:
        typer.echo(json.dumps(_to_dict(model, data, split, result), indent=2))
    else:
        _print(result)


def _to_dict(model: str, data: str, split: str, result: Evaluation) -> dict[str, object]:
    return {
        "model": model,
        "data": data,
        "split": split,
        "images": result.count,
        **result.figures,
        "top1_interval": list(result.interval),
        "per_class": {name: share for name, share, _ in result.per_class()},
        "bad_images": [{"image": key, "reason": reason} for key, reason in result.bad],
        "seconds": round(result.seconds, 3),
    }


def _print(result: Evaluation) -> None:
    low, high = result.interval
    typer.echo(f"top-1  {result.figures['top1']:7.2%}   95 % interval {low:.1%} to {high:.1%}")
    if "top5" in result.figures:
        typer.echo(f"top-5  {result.figures['top5']:7.2%}")
    typer.echo(f"loss   {result.figures['loss']:7.4f}")
    typer.echo(f"images {result.count:7d}   {result.count / result.seconds:.0f} a second")
    known = [(name, share, count) for name, share, count in result.per_class() if share is not None]
    typer.echo("worst classes")
    for name, share, count in sorted(known, key=lambda row: (row[1], row[0]))[:5]:
        typer.echo(f"  {share:7.2%}  {name} ({count} images)")
