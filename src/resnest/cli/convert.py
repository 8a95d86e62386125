"""`resnest convert`: a checkpoint from one layout into another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from resnest.cli.words import NETWORK_HELP

HEAD_HELP = "Leave out the classifier, or a detector's or segmenter's heads."
TO_HELP = (
    "official, timm, gluon, encoding, detectron2, mmpretrain, mmdetection or mmsegmentation; whole detectors: official,"
    " detectron2 or torchvision; whole segmenters: official or encoding."
)


def convert(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint file of any layout, or a name of published weights.")],
    to: Annotated[str, typer.Option(metavar="LAYOUT", help=TO_HELP)],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Its suffix chooses the format: .safetensors, .pth, ...")],
    network: Annotated[str | None, typer.Option("--model", metavar="NAME", help=NETWORK_HELP)] = None,
    drop_head: Annotated[bool, typer.Option("--drop-head", help=HEAD_HELP)] = False,
    bare: Annotated[
        bool, typer.Option("--bare", help="Without the prefix of a backbone inside a larger model.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Summary as JSON.")] = False,
) -> None:
    """Convert a checkpoint to another code base's layout.

    What the layout cannot hold is named, and nothing is written then.
    """
    from resnest.checkpoints.convert import convert as run
    from resnest.checkpoints.references import locate

    source, row = locate(checkpoint)
    named = network or (row.network if row else None)
    done = run(source, to=to, out=out, network=named, drop_head=drop_head, bare=bare, overwrite=overwrite)
    typer.echo(json.dumps(done.to_dict(), indent=2) if as_json else str(done))
