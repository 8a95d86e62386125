"""`resnest models`: the networks, without loading torch."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from resnest.cost import macs, parameters
from resnest.spec import BASELINES, PUBLISHED


def models(as_json: Annotated[bool, typer.Option("--json", help="As JSON; top1 is a fraction.")] = False) -> None:
    """List the networks: cost, crop, published accuracy."""
    rows = [*_published(), *_baselines()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    typer.echo(f"{'name':<24} {'timm name':<22} {'params':>8} {'GMACs':>7} {'crop':>5} {'top-1':>7}")
    for row in rows:
        top1 = f"{row['top1']:.2%}" if row["top1"] else "-"
        typer.echo(
            f"{row['name']:<24} {row['timm'] or '-':<22} {row['parameters'] / 1e6:>7.2f}M {row['macs'] / 1e9:>7.3f}"
            f" {row['crop']:>5} {top1:>7}"
        )
    typer.echo("\nGMACs: convolutions and fully connected layers at the crop. top-1: ImageNet, as published.")
    typer.echo("Published weights are not downloaded by this version: pass a file, pretrained=FILE.")


def _published() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "timm": net.timm,
            "parameters": parameters(net.spec),
            "macs": macs(net.spec, size=net.crop),
            "crop": net.crop,
            "top1": round(net.top1 / 100, 6),
        }
        for name, net in PUBLISHED.items()
    ]


def _baselines() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "timm": name,
            "parameters": parameters(spec),
            "macs": macs(spec, size=224),
            "crop": 224,
            "top1": None,
        }
        for name, spec in BASELINES.items()
    ]
