"""`resnest compare`: models on the same pictures, and whether their difference is more than chance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from resnest.cli.words import DATA_HELP

MODELS_HELP = "Runs, exported files, checkpoints or names; the others are compared with the first."
SPLIT_HELP = "val, test, train, all; auto: what the runs were validated on."


def compare(
    models: Annotated[list[str], typer.Argument(metavar="MODEL MODEL...", help=MODELS_HELP)],
    data: Annotated[str | None, typer.Option(help=f"{DATA_HELP} By default that of the runs.")] = None,
    split: Annotated[str, typer.Option(help=SPLIT_HELP)] = "auto",
    resamples: Annotated[int, typer.Option(min=100, help="Samples of the pictures, for intervals.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of these samples.")] = 0,
    no_speed: Annotated[bool, typer.Option("--no-speed", help="Measure no milliseconds.")] = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page, with pictures.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, fractions 0..1.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Compare models on the same pictures: figures, significance, speed, settings, and pictures that differ."""
    from resnest.comparison.comparing import compare as run
    from resnest.comparison.page import check_page, write_comparison
    from resnest.progress import Progress

    if html is not None:
        check_page(html)
    bar = Progress("", rate="", lines=False)

    def on_stage(title: str, total: int) -> Callable[[int], None]:
        bar.stop()
        bar.what = title
        bar.start(total)
        return bar.advance

    try:
        result = run(
            models,
            data,
            split=split,
            resamples=resamples,
            seed=seed,
            measure_speed=not no_speed,
            device=device,
            on_stage=on_stage,
        )
    finally:
        bar.stop()
    typer.echo(result.to_json() if as_json else result.text())
    if html is not None:
        write_comparison(html, result)
        typer.echo(f"page: {html}", err=True)
