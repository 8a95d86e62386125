"""`resnest predict`: predictions for files, folders and globs, as text, JSON, CSV, masks, or drawings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from resnest.cli.words import MODEL_HELP, NETWORK_HELP, WINDOW_HELP
from resnest.errors import ResnestError

ENGINE_HELP = "auto, torch, onnxruntime or openvino; auto prefers a run's exported file, and prints the engine."
THRESHOLD_HELP = "Lowest score of a detection; by default 0.5."
COCO_HELP = "Write all detections (or those above --threshold) as COCO json."
MASKS_HELP = "Write a segmenter's PNGs of class ids and class list here; for panoptic models, COCO's PNGs and json."
CARD_HELP = "config.json, or its directory, of an exported file without class names."


def predict(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    paths: Annotated[list[str], typer.Argument(help="Images, folders, or globs such as 'photos/**/*.jpg'.")],
    top: Annotated[
        int | None, typer.Option(min=1, help="Labels to show per image; by default 1, if multi-label those of 50 %.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line; scores are fractions.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV with one row per label, object or segment.")] = False,
    draw: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the pictures with predictions drawn here.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help=THRESHOLD_HELP)] = None,
    coco: Annotated[Path | None, typer.Option(metavar="FILE", help=COCO_HELP)] = None,
    masks: Annotated[Path | None, typer.Option(metavar="DIR", help=MASKS_HELP)] = None,
    window: Annotated[int | None, typer.Option(metavar="PIXELS", help=WINDOW_HELP)] = None,
    network: Annotated[str | None, typer.Option("--model", metavar="NAME", help=NETWORK_HELP)] = None,
    engine: Annotated[str, typer.Option(help=ENGINE_HELP)] = "auto",
    card: Annotated[str | None, typer.Option(metavar="FILE", help=CARD_HELP)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
) -> None:
    """Predict pictures: labels, objects, masks, or panoptic segments.

    Unusable files are named on standard error and the others go on; exit code 2 then.
    """
    if as_json and as_csv:
        raise ResnestError("--json and --csv exclude each other")
    from resnest.cli.outputs import Outputs, Printer, check_options, given
    from resnest.cli.pictures import find_pictures
    from resnest.progress import Progress

    pictures = list(find_pictures(paths))
    from resnest.inference.predicting import Predictor
    from resnest.runtime.decode import BadImage
    from resnest.runtime.results import ALL, Show
    from resnest.tasks import load_object

    size = max(1, min(batch_size, len(pictures)))
    predictor = Predictor(
        model, engine=engine, network=network, device=device, batch_size=size, card=card, window=window
    )
    typer.echo(f"engine: {predictor.engine.name}{f' ({predictor.note})' if predictor.note else ''}", err=True)
    info = predictor.card.info
    limits, asked = given(top=top, threshold=threshold), given(coco=coco, masks=masks)
    check_options(predictor.card.task, [*limits, *asked])
    show, inputs = Show(**limits), [one.path for one in pictures]
    kept = replace(ALL, **limits)
    opened = [load_object(info.files[name]).open(path, predictor.card, kept, inputs) for name, path in asked.items()]
    printer = Printer("json" if as_json else "csv" if as_csv else "text", load_object(info.result), show)
    outputs = Outputs(opened, draw, show, inputs)
    bad = 0
    with Progress("predicting:", rate="images", lines=False) as bar:
        bar.start(len(pictures))
        for picture, result in zip(pictures, predictor.stream(inputs), strict=True):
            bar.advance()
            if isinstance(result, BadImage):
                bad += 1
                typer.echo(f"skipped: {result}", err=True)
                continue
            printer.write(result)
            outputs.add(result, picture)
    for line in outputs.close():
        typer.echo(line, err=True)
    if bad:
        raise ResnestError(f"{bad} of {len(pictures)} images could not be used")
