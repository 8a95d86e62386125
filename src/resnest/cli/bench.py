"""`resnest bench`: speed of networks and engines, turn by turn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from resnest.bench import Plan, Table

MODELS_HELP = (
    "Our names, timm:NAME, torchvision:NAME, runs, checkpoints, .onnx and .xml files."
    " None: resnest50, against timm's if it is installed; with --plot the families of the paper's first figure."
)
SLOWER = 1  # exit code of --fail


def bench(
    models: Annotated[list[str] | None, typer.Argument(metavar="[MODEL...]", help=MODELS_HELP)] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help="eager, eager-kept, prepared, torch, compiled, onnxruntime, openvino, predictor; default: most."
        ),
    ] = None,
    batch: Annotated[list[str] | None, typer.Option(help="Batch sizes; by default 1,16 (1 with --plot).")] = None,
    size: Annotated[list[str] | None, typer.Option(help="Side in pixels; default: each network's own crop.")] = None,
    layout: Annotated[list[str] | None, typer.Option(help="nchw or channels_last, for eager; default: both.")] = None,
    rounds: Annotated[int, typer.Option(help="Rounds; six or more give 95 % intervals.")] = 9,
    threads: Annotated[int | None, typer.Option(help="Threads of every engine; by default torch's number.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    precision: Annotated[str, typer.Option(help="float32 or bfloat16, for torch's engines.")] = "float32",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="CSV of every repetition.")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Plot of accuracy over latency: .svg, .png.")
    ] = None,
    compare: Annotated[Path | None, typer.Option(metavar="OLD", help="CSV of an earlier --out.")] = None,
    fail: Annotated[bool, typer.Option("--fail", help="With --compare: exit code 1 if a case is slower.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON, in seconds.")] = False,
) -> None:
    """Measure speed: our networks, others and exported files, alternately in every engine.

    Several engines, batches, sizes and layouts: with commas, or the option again.
    """
    from resnest.bench import lines, plan, read_table, to_dict
    from resnest.bench.plot import FIGURES, draw, need_matplotlib
    from resnest.bench.table import is_table
    from resnest.errors import ResnestError
    from resnest.files import check_is_not, check_replaceable, is_replaceable

    if fail and compare is None:
        raise ResnestError("--fail needs --compare OLD.csv")
    if plot:
        need_matplotlib()
    for path, is_ours in ((out, is_table), (plot, is_replaceable)):
        if path:
            check_replaceable(path, is_ours)
    if out and compare:
        check_is_not(out, compare, "the table that it is compared with")
    old = read_table(compare) if compare else None
    planned = plan(
        models or (list(FIGURES) if plot else ()),
        engines=_words(engine) or (["onnxruntime"] if plot and not models else []),
        batches=_numbers("batch", batch) or ([1] if plot else [1, 16]),
        sizes=_numbers("size", size) or [None],
        layouts=_words(layout),
        rounds=rounds,
        threads=threads,
        device=device,
        precision=precision,
    )
    table = _measure(planned, out)
    typer.echo(json.dumps(to_dict(table), indent=2) if as_json else "\n".join(lines(table)))
    if plot:
        draw(plot, table)
    if old is not None and _tell_changes(old, table) and fail:
        raise typer.Exit(SLOWER)


def _measure(planned: Plan, out: Path | None) -> Table:
    """The table, which is written to `out` after each round."""
    from resnest.bench import bench as run
    from resnest.bench import write_table
    from resnest.progress import Progress

    with Progress("measuring:", lines=False) as bar:
        bar.start(planned.turns)

        def keep(table: Table) -> None:
            if out:
                write_table(out, table)

        return run(planned, on_turn=bar.advance, on_step=lambda step: typer.echo(step, err=True), on_round=keep)


def _tell_changes(old: Table, new: Table) -> int:
    """Prints changes against the old table on standard error, since --json uses standard output."""
    from resnest.bench.table import compare, differences, missing

    for difference in differences(old, new):
        typer.echo(f"the environments differ in {difference}", err=True)
    changes = compare(old, new)
    for change in changes:
        typer.echo(str(change), err=True)
    if left := missing(old, new):
        typer.echo(f"not measured now: {'; '.join(map(str, left))}", err=True)
    slower = sum(change.verdict == "slower" for change in changes)
    typer.echo(f"{slower} of {len(changes)} cases are slower beyond noise", err=True)
    return slower


def _words(values: list[str] | None) -> list[str]:
    """Options, repeated or with commas: ["a,b", "c"] -> ["a", "b", "c"]."""
    return list(dict.fromkeys(word.strip() for text in values or [] for word in text.split(",") if word.strip()))


def _numbers(option: str, values: list[str] | None) -> list[int]:
    from resnest.errors import ResnestError

    try:
        return [int(word) for word in _words(values)]
    except ValueError:
        raise ResnestError(f"--{option} {','.join(values or [])}: integers with commas, as in 1,16") from None
