"""`resnest models`: the networks, without loading torch. Its own verbs are in `weights.py` and `sharing.py`."""

from __future__ import annotations

import json
from typing import Any

import typer

from resnest.checkpoints.manifest import MANIFEST
from resnest.cli.sharing import push, save
from resnest.cli.weights import AsJson, fetch, show
from resnest.cost import macs, parameters
from resnest.spec import BASELINES, PUBLISHED

models = typer.Typer(
    help="List the networks; show and fetch their published weights; save and share a model.",
    rich_markup_mode=None,
)
for verb in (show, fetch, save, push):
    models.command()(verb)


@models.callback(invoke_without_command=True)
def listing(context: typer.Context, as_json: AsJson = False) -> None:
    """List the networks: cost, crop, published accuracy, available weights."""
    if context.invoked_subcommand:
        return
    rows = [*map(_published, PUBLISHED), *map(_baseline, BASELINES)]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    typer.echo(f"{'name':<24} {'timm name':<20} {'params':>8} {'GMACs':>7} {'crop':>5} {'top-1':>7}  weights")
    for row in rows:
        top1 = f"{row['top1']:.2%}" if row["top1"] else "-"
        typer.echo(
            f"{row['name']:<24} {row['timm'] or '-':<20} {row['parameters'] / 1e6:>7.2f}M {row['macs'] / 1e9:>7.3f}"
            f" {row['crop']:>5} {top1:>7}  {', '.join(row['weights']) or '-'}"
        )
    typer.echo("\nGMACs: convolutions and fully connected layers at the crop. top-1: ImageNet, as published.")
    typer.echo("Weights: NAME.TAG, as in resnest50.official. `resnest models show NAME` shows their links,")
    typer.echo("`resnest models fetch NAME` gets them, create_model(NAME, pretrained=True) too.")


def _published(name: str) -> dict[str, Any]:
    net = PUBLISHED[name]
    return {
        "name": name,
        "timm": net.timm,
        "parameters": parameters(net.spec),
        "macs": macs(net.spec, size=net.crop),
        "crop": net.crop,
        "top1": round(net.top1 / 100, 6),
        "weights": [row.name.split(".", 1)[1] for row in MANIFEST if row.network == name and not row.dead],
    }


def _baseline(name: str) -> dict[str, Any]:
    spec = BASELINES[name]
    cost = {"parameters": parameters(spec), "macs": macs(spec, size=224)}
    return {"name": name, "timm": name, **cost, "crop": 224, "top1": None, "weights": []}
