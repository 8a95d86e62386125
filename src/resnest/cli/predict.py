"""`resnest predict`: predictions for files, folders and globs, as text, JSON, CSV, masks, or drawings."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from resnest.cli.words import MODEL_HELP, NETWORK_HELP, WINDOW_HELP
from resnest.errors import ResnestError

if TYPE_CHECKING:
    from resnest.runtime.results import Result, ResultFiles, Show


# --- The pictures that `resnest predict` takes: files, folders and globs ---


class Picture(NamedTuple):
    """A picture file."""

    path: Path
    relative: Path  # within the folder that was named, or its name


def find_pictures(paths: list[str]) -> Iterator[Picture]:
    """Files in the order given; a folder's images in sorted order, subfolders included.

    What is left out of a folder is said on standard error.

    Raises:
        ResnestError: a folder without images, a pattern that no file matches.
    """
    from resnest.data.listing import list_images, nothing_found

    for text in paths:
        path = Path(text)
        if path.is_dir():
            found = list_images(path)
            if not found.images:
                raise ResnestError(f"no images in {path} ({nothing_found(found)})")
            for note in found.notes():
                typer.echo(f"{path}: {note}", err=True)
            yield from (Picture(path / name, Path(name)) for name in found.images)
        elif has_magic(text) and not path.exists():
            matches = [Path(match) for match in sorted(glob(text, recursive=True)) if Path(match).is_file()]
            if not matches:
                raise ResnestError(f"no file matches {text}")
            yield from (Picture(file, Path(file.name)) for file in matches)
        else:
            yield Picture(path, Path(path.name))


# --- Outputs of `resnest predict`, for any task: lines on standard output, drawings, files for other programs.


class Printer:
    """Results on standard output, as text, json or csv."""

    def __init__(self, form: str, kind: type[Result], show: Show) -> None:
        self.form, self.show = form, show
        self.table = csv.writer(sys.stdout)
        if form == "csv":
            self.table.writerow(kind.COLUMNS)

    def write(self, result: Result) -> None:
        if self.form == "csv":
            self.table.writerows(result.cells(self.show))
        else:
            typer.echo(result.to_json(self.show) if self.form == "json" else result.text(self.show))


class Outputs:
    """Files for each picture: drawings in a folder, and the task's files for other programs.

    Raises:
        ResnestError: a file or folder cannot be written.
    """

    def __init__(self, files: Iterable[ResultFiles], drawings: Path | None, show: Show, inputs: Iterable[Path]) -> None:
        from resnest.files import OutputFolder

        self.files = list(files)
        self.drawings = OutputFolder(drawings, inputs) if drawings else None
        self.show = show

    def add(self, result: Result, picture: Picture) -> None:
        for files in self.files:
            files.add(result, picture.relative)
        if self.drawings:
            with self.drawings.writing(Path(f"{picture.path.stem}.jpg")) as path:
                result.save(path, picture.path, self.show)

    def close(self) -> list[str]:
        """Write what is left; returns a summary."""
        summary = [files.close() for files in self.files]
        drawn = [f"{len(self.drawings.names)} pictures in {self.drawings.folder}"] if self.drawings else []
        return summary + drawn


def set_options(**options: Any) -> dict[str, Any]:
    """Options that are set."""
    return {name: value for name, value in options.items() if value is not None}


def check_options(task: str, options: Iterable[str]) -> None:
    """Raises ResnestError for an option that is for another kind of model."""
    from resnest.tasks import TASKS, load_object, task_info

    def takes(name: str, option: str) -> bool:
        return option in {*load_object(task_info(name).result).OPTIONS, *task_info(name).files}

    for option in options:
        if not takes(task, option):
            owners = [task_info(name) for name in TASKS if takes(name, option)]
            others = " and ".join(f"{owner.noun.removeprefix('a ')}s" for owner in owners)
            raise ResnestError(f"--{option} is for {others}, and this model is {task_info(task).noun}: leave it out")


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
    limits, asked = set_options(top=top, threshold=threshold), set_options(coco=coco, masks=masks)
    check_options(predictor.card.task, [*limits, *asked])
    show, inputs = Show(**limits), [picture.path for picture in pictures]
    shown = replace(ALL, **limits)
    opened = [load_object(info.files[name]).open(path, predictor.card, shown, inputs) for name, path in asked.items()]
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
