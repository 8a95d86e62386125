"""`resnest serve`: models behind HTTP, with a page."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resnest.cli.words import MODEL_HELP
from resnest.errors import ResnestError, parameter

if TYPE_CHECKING:
    from resnest.runtime.predictor import ImagePredictor

MODELS_HELP = f"{MODEL_HELP} NAME=MODEL gives it a name in addresses."
TOKEN_HELP = "Clients must send it as 'Authorization: Bearer TOKEN'. Better in the environment: RESNEST_TOKEN."
BOXES_HELP = "Of keypoint models: a detector (DETECTOR@CLASS), whose boxes are looked at where a request gives none."
WAIT_HELP = "Milliseconds that a picture waits for others, to be computed as one batch."


def serve(
    models: Annotated[list[str], typer.Argument(help=MODELS_HELP)],
    host: Annotated[str, typer.Option(help="0.0.0.0 answers other machines, too.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.")] = 8000,
    token: Annotated[str | None, typer.Option(help=TOKEN_HELP)] = None,
    cors: Annotated[list[str] | None, typer.Option(metavar="ORIGIN", help="Pages of this origin may call.")] = None,
    engine: Annotated[str, typer.Option(help="auto, torch, onnxruntime or openvino.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    window: Annotated[int | None, typer.Option(metavar="PIXELS", help="As for predict, of a segmenter.")] = None,
    boxes: Annotated[str | None, typer.Option(metavar="MODEL", help=BOXES_HELP)] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures of a batch, at most.")] = 8,
    wait: Annotated[float, typer.Option(min=0, help=WAIT_HELP)] = 2.0,
    queue: Annotated[int, typer.Option(min=1, help="Pictures that a model accepts at once; others get 429.")] = 64,
    timeout: Annotated[float, typer.Option(help="Seconds until a request is given up, with 504.")] = 30.0,
    max_mib: Annotated[int, typer.Option(min=1, help="Size of a request, MiB.")] = 20,
    max_megapixels: Annotated[int, typer.Option(min=1, help="Size of a picture.")] = 50,
    reload: Annotated[bool, typer.Option(help="Open a model again when its file changes.")] = False,
) -> None:
    """Answer predictions over HTTP, with a page at /, docs at /docs and figures at /metrics.

    curl --data-binary @photo.jpg localhost:8000/predict
    """
    try:
        from resnest.serving.app import create_app
        from resnest.serving.running import serve as run
    except ModuleNotFoundError as error:
        raise ResnestError(f"{error.name} is not installed: pip install '.[serve]'") from None
    from resnest.inference.predicting import Predictor
    from resnest.serving.address import bind
    from resnest.serving.guard import log_line
    from resnest.serving.limits import MEBIBYTE, Limits
    from resnest.serving.metrics import Metrics
    from resnest.serving.models import Models, named
    from resnest.serving.reloading import Reloader

    limits = Limits(queue=queue, timeout=timeout, body=max_mib * MEBIBYTE, pixels=max_megapixels * 1_000_000)
    references = named(models)

    def open_model(reference: str) -> Predictor:
        return Predictor(reference, engine=engine, device=device, batch_size=batch_size, window=window)

    with bind(host, port) as sock:
        predictors = {name: open_model(reference) for name, reference in references.items()}
        metrics, secret = Metrics(), token or os.environ.get("RESNEST_TOKEN") or None
        finding = _finding(predictors, boxes, device)
        how: dict[str, Any] = {"largest": batch_size, "longest_wait": wait / 1000, "watch": metrics.batch}
        opened = Models(predictors, limits, boxes=finding, **how)
        app = create_app(opened, limits, metrics=metrics, token=secret, cors=cors or ())
        for name, predictor in predictors.items():
            noun, classes = predictor.card.info.noun, len(predictor.card.class_names)
            typer.echo(f"{name}: {noun}, {classes} classes, {predictor.engine.name}", err=True)
            if predictor.card.info.boxes and name not in finding:
                typer.echo(f"note: {name} looks at a picture as the crop of one object, or at `boxes` given", err=True)
        _say_where(host, sock.getsockname()[1], secret)
        for name, reference in references.items() if reload else ():
            Reloader(opened[name], reference, partial(open_model, reference), log_line).start()
        run(app, sock, limits, drain=timeout)


def _finding(predictors: Mapping[str, ImagePredictor], boxes: str | None, device: str) -> dict[str, Any]:
    """What finds the boxes of models that look at boxes, by name. Raises ResnestError: there are none, or a file."""
    from resnest.tasks import box_source

    if boxes is None:
        return {}
    looking = {name: one for name, one in predictors.items() if one.card.info.boxes}
    if not looking:
        box_source(next(iter(predictors.values())).card.info)  # raises
    found = {name: box_source(one.card.info).open(boxes, one.card, device=device) for name, one in looking.items()}
    if any(source.finder is None for source in found.values()):
        raise ResnestError(f"{parameter('boxes', boxes)} is a file: a server finds boxes with a detector")
    return found


def _say_where(host: str, port: int, token: str | None) -> None:
    typer.echo(f"serving at http://{f'[{host}]' if ':' in host else host}:{port}", err=True)
    if host not in ("127.0.0.1", "::1", "localhost") and not token:
        typer.echo("note: every machine that reaches this one can use it: --token asks for a password", err=True)
