"""`resnest export`: a model in another engine's format, run there and compared before it is delivered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resnest.cli.words import MODEL_HELP, NETWORK_HELP

if TYPE_CHECKING:
    from resnest.export.exporting import Exported

FORMAT_HELP = "onnx, openvino, torch, aotinductor or executorch; by default what --out ends in, else onnx."
OUT_HELP = (
    "By default model.onnx (.xml, .pt2, .pte) in a run's directory, else NAME.onnx here. An older file is replaced."
)
SIZE_HELP = "Pixels of a side, instead of the model's own: what a file of one size is made for."
IMAGES_HELP = "Compare on pictures of this folder, instead of synthetic ones."


def export(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    format: Annotated[str | None, typer.Option(help=FORMAT_HELP)] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help=OUT_HELP)] = None,
    size: Annotated[int | None, typer.Option(help=SIZE_HELP)] = None,
    images: Annotated[Path | None, typer.Option(metavar="DIR", help=IMAGES_HELP)] = None,
    network: Annotated[str | None, typer.Option("--model", metavar="NAME", help=NETWORK_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="What was checked, as JSON.")] = False,
) -> None:
    """Write a model for another engine, and verify it.

    The file is run in that engine and compared with the network. If it differs, exit code 5, and nothing is written.
    """
    from resnest.export.exporting import export as run

    done = run(
        model,
        format=format,
        out=out,
        network=network,
        size=size,
        images=images,
        on_step=lambda step: typer.echo(step, err=True),
    )
    typer.echo(json.dumps(done.to_dict(), indent=2) if as_json else _to_text(done))


def _to_text(done: Exported) -> str:
    parity, shapes = done.parity, done.parity.shapes
    batches = ", ".join(str(count) for count in dict.fromkeys(shape[0] for shape in shapes))
    sizes = ", ".join(f"{high}x{wide}" for high, wide in dict.fromkeys(shape[2:] for shape in shapes))
    takes = done.origin["sizes"]
    lines = [
        f"written    {done.path} ({done.bytes / 2**20:.1f} MiB)",
        f"takes      batch {takes['batch']}, height {takes['height']}, width {takes['width']}",
        f"run in     {done.engine}, batches of {batches} at {sizes}",
        f"difference {parity.worst.value:.1e} of the largest logit (allowed {parity.tolerances['logits']:.0e})",
        f"labels     the same for {parity.agreeing} of {done.pictures}",
    ]
    if "steps" in done.told:
        left = ", ".join(f"{count} {name}" for name, count in done.told["not_in_xnnpack"].items())
        lines.append(
            f"XNNPACK    runs {done.told['xnnpack']} of {done.told['steps']} steps; not {left or 'anything else'}"
        )
    lines.append(f"compared   in {parity.seconds:.1f} s")
    return "\n".join(lines)
