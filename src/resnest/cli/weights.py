"""`resnest models show` and `resnest models fetch`: published weights, without loading torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from resnest.checkpoints.manifest import MANIFEST, Weights, find_weights
from resnest.cli.inspecting import describe_file, to_text
from resnest.errors import ResnestError
from resnest.spec import find_spec

AsJson = Annotated[bool, typer.Option("--json", help="As JSON; accuracies are fractions.")]


def show(
    name: Annotated[str, typer.Argument(help="A network, a row such as resnest50.gluon, or a checkpoint file.")],
    as_json: AsJson = False,
) -> None:
    """Show what is known about published weights (mirrors, hashes, accuracy), or describe a checkpoint file."""
    if Path(name).exists():
        told = describe_file(Path(name))
        typer.echo(json.dumps(told, indent=2) if as_json else to_text(told))
        return
    _, network = find_spec(name)
    rows = [find_weights(name)] if "." in name else [row for row in MANIFEST if row.network == network]
    if as_json:
        typer.echo(json.dumps([_to_dict(row) for row in rows], indent=2))
    elif not rows:
        typer.echo(f"{network} has no published weights here: it is a baseline to train yourself")
    else:
        typer.echo("\n\n".join(map(_describe, rows)))


def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Networks, or rows of weights.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every row whose links are not all dead.")] = False,
    to: Annotated[Path | None, typer.Option(metavar="DIR", help="Into this folder instead of the cache.")] = None,
) -> None:
    """Download published weights, verified, into the cache or a folder.

    A later `pretrained=DIR`, or RESNEST_HOME, uses them without a network.
    """
    from resnest.checkpoints import fetch as fetching

    if bool(names) == everything:
        raise ResnestError("name the weights to fetch, or say --all")
    rows = [row for row in MANIFEST if not row.dead] if everything else [find_weights(name) for name in names or ()]
    failed = []
    for row in rows:
        try:
            typer.echo(f"{row.name}: {fetching.fetch(row, to)}")
        except ResnestError as error:
            if len(rows) == 1:
                raise
            failed.append(row.name)
            typer.echo(f"resnest: {error}", err=True)
    if failed:
        raise ResnestError(f"{len(failed)} of {len(rows)} could not be fetched: {', '.join(failed)}")


def _describe(row: Weights) -> str:
    order = f"centre {row.crop / (row.crop + 32):.3f} of the short side, resized to {row.crop}"
    if row.resize:
        order = f"short side resized to {row.resize}, centre {row.crop}"
    accuracy = f"{row.top1:.2f} % top-1" if row.top1 else "not published for this file"
    if row.top5:
        accuracy += f", {row.top5:.2f} % top-5"
    lines = {
        "network": row.network if row.head else f"{row.network}, backbone without classifier",
        "layout": row.layout,
        "ImageNet": accuracy,
        "preprocessing": f"{order}, {row.interpolation}",
        "hash": f"published: {row.hash_known}; the full sha256 is pinned at the first download",
        "licence": row.licence,
    }
    mirrors = [f"{mirror}{'   (known to be dead)' if mirror.status == 'dead' else ''}" for mirror in row.mirrors]
    texts = [f"  {key:<14} {text}" for key, text in lines.items()]
    return "\n".join([row.name, *texts, *(f"  {'mirror':<14} {mirror}" for mirror in mirrors)])


def _to_dict(row: Weights) -> dict[str, Any]:
    return {
        "name": row.name,
        "network": row.network,
        "layout": row.layout,
        "file": row.file,
        "sha256_prefix": row.sha256 or None,
        "sha1": row.sha1 or None,
        "licence": row.licence,
        "crop": row.crop,
        "resize": row.resize,
        "interpolation": row.interpolation,
        "top1": round(row.top1 / 100, 6) if row.top1 else None,
        "top5": round(row.top5 / 100, 6) if row.top5 else None,
        "head": row.head,
        "mirrors": [{"where": str(mirror), "status": mirror.status} for mirror in row.mirrors],
    }
