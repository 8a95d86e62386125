"""`resnest models save` and `resnest models push`: a model in the hub's form, on disk or on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resnest.cli.words import MODEL_HELP, NETWORK_HELP


def push(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    repo: Annotated[str, typer.Argument(metavar="USER/NAME", help="Repository of the hub; created if missing.")],
    private: Annotated[bool, typer.Option("--private")] = False,
) -> None:
    """Upload a model to the Hugging Face hub, with a model card of its figures."""
    from resnest.inference.model import Model

    typer.echo(Model.from_pretrained(model).push_to_hub(repo, private=private))


def save(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    directory: Annotated[Path, typer.Argument(metavar="DIR")],
    network: Annotated[str | None, typer.Option("--model", metavar="NAME", help=NETWORK_HELP)] = None,
) -> None:
    """Write a model in the hub's format: config.json, model.safetensors, README.md. timm's local-dir: reads it too."""
    from resnest.inference.model import Model

    typer.echo(f"saved in {Model.from_pretrained(model, network=network).save_pretrained(directory)}")
