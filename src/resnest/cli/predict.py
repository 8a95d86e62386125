"""`resnest predict`: predictions for files, folders, globs and lists, as text, JSON, CSV, masks, or drawings."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from glob import glob, has_magic
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from resnest.cli.picture_lists import is_list, read_list
from resnest.cli.sources import Sources
from resnest.cli.words import MODEL_HELP, NETWORK_HELP, WINDOW_HELP
from resnest.errors import ResnestError, parameter, printable

if TYPE_CHECKING:
    from resnest.inference.predicting import Predictor
    from resnest.runtime.decode import ImageInput
    from resnest.runtime.outputs import OutputFolder, Placed
    from resnest.runtime.results import Asked, Result, ResultFiles, Show


# --- The pictures that `resnest predict` takes: files, folders, globs, and lists of them ---


class Picture(NamedTuple):
    """A picture file."""

    path: Path
    relative: Path  # within the folder that was named, or its name


def find_pictures(paths: list[str], sources: Sources) -> Iterator[Picture]:
    """Files in the order given; a folder's images in sorted order, subfolders included.

    What is left out of a folder is said on standard error.

    Raises:
        ResnestError: a folder without images, a pattern that no file matches.
    """
    from resnest.data.listing import list_images, nothing_found

    for text in paths:
        path = Path(text)
        if path.is_dir():
            before = sources.left
            found = list_images(path, also=sources.takes)
            videos = sources.left - before
            how = f"{parameter('every', 1)} takes the videos of folders, too: {videos} here" if videos else ""
            if not found.images:
                raise ResnestError(f"no images in {path} ({how or nothing_found(found)})")
            if how:
                typer.echo(f"{path}: {how}", err=True)
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


def collect(paths: list[str], sources: Sources) -> tuple[list[Placed], int]:
    """The pictures and sources, placed for output, and how many lists are unusable: of several words, others go on."""
    from resnest.runtime.outputs import place

    found: list[Picture] = []
    unusable = 0
    for text in paths:
        try:
            found += _listed(text, sources) if is_list(text) else _named(text, sources)
        except ResnestError as error:
            if len(paths) == 1 or not is_list(text):
                raise
            unusable += 1
            typer.echo(f"skipped: {error}", err=True)
    placed = place([(picture.path, picture.path.parents[len(picture.relative.parts) - 1]) for picture in found])
    return placed, unusable


def _named(text: str, sources: Sources) -> Iterator[Picture]:
    """What a word of the command line names, other than a list."""
    from resnest.runtime.sources import is_address

    if is_address(text):
        path = sources.stand_in(text)
        return iter([Picture(path, Path(path.name))])
    return find_pictures([text], sources)


def _listed(text: str, sources: Sources) -> Iterator[Picture]:
    for path in read_list(text):
        if isinstance(path, str) or path.is_dir():
            yield from _named(str(path), sources)
        else:
            yield Picture(path, Path(path.name))


# --- Outputs of `resnest predict`, for any task: lines on standard output, drawings, files for other programs.


class Printer:
    """Results on standard output, as text, json or csv."""

    def __init__(self, form: str, kind: type[Result], show: Show, more: tuple[str, ...] = ()) -> None:
        self.form, self.show, self.more = form, show, more
        self.ascii = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"  # json in that case
        self.table = csv.writer(sys.stdout)
        if form == "csv":
            self.table.writerow([*kind.COLUMNS, *more])

    def write(self, result: Result, files: Mapping[str, str], place: Mapping[str, float] | None = None) -> None:
        """A result, in json with the files that were written for its picture, and a frame's number and time."""
        place = place or {}
        if self.form == "csv":
            ends = [place.get(name, "") for name in self.more]
            self.table.writerows([*row, *ends] for row in result.cells(self.show))
        elif self.form == "json":
            content = {**result.to_dict(self.show), **place, **({"files": files} if files else {})}
            typer.echo(json.dumps(content, ensure_ascii=self.ascii))
        else:
            typer.echo(printable(result.text(self.show)))


class Outputs:
    """Files for each picture: drawings in a folder, and the task's files for other programs.

    Raises:
        ResnestError: a file or folder cannot be written.
    """

    def __init__(self, files: Mapping[str, ResultFiles], drawings: OutputFolder | None, show: Show) -> None:
        self.files, self.drawings, self.show = files, drawings, show
        self.done: dict[Path, dict[str, str]] = {}

    def add(self, result: Result, picture: Placed) -> dict[str, str]:
        """The picture's own files by option. A picture that comes again is not written again."""
        if picture.path in self.done:
            return self.done[picture.path]
        told = self.write(result, picture, picture.path)
        if self.files or self.drawings:
            self.done[picture.path] = told
        return told

    def write(self, result: Result, picture: Placed, image: ImageInput | None) -> dict[str, str]:
        """The files of a result; `image` is drawn into, if any."""
        written = {name: files.add(result, picture) for name, files in self.files.items()}
        if self.drawings and image is not None:
            with self.drawings.writing(picture) as path:
                result.save(path, image, self.show)
            written["draw"] = path
        return {name: str(path) for name, path in written.items() if path}

    def close(self) -> list[str]:
        """Write what is left; returns a summary."""
        summary = [files.close() for files in self.files.values()]
        drawn = (
            [f"{len(self.drawings.written)} pictures in {self.drawings}"]
            if self.drawings and self.drawings.written
            else []
        )
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


def use_annotations(path: Path, predictor: Predictor, pictures: list[Placed], files: Mapping[str, Path]) -> Asked:
    """Give pictures and the predictor's classes the ids of an annotation file.

    Raises:
        ResnestError: no output has ids; the file does not fit, or is where output goes.
    """
    from resnest.runtime.annotation_ids import AnnotationIds
    from resnest.runtime.results import Asked
    from resnest.tasks import TASKS, load_object, task_info

    info = predictor.card.info
    if not any(load_object(info.files[name]).HAS_IDS for name in files):
        known = [(name, task_info(task)) for task in TASKS for name in task_info(task).files]
        fit = [f"--{name} of {own.noun}" for name, own in known if load_object(own.files[name]).HAS_IDS]
        raise ResnestError(f"{parameter('annotations', path)} gives ids for {' or '.join(fit)}")
    for name, output in files.items():
        if path.resolve().is_relative_to(output.resolve()):
            raise ResnestError(f"{parameter(name, output)} might replace {path}: write elsewhere")
    ids = AnnotationIds.read(path)
    numbered = ids.number(pictures)
    predictor.card = ids.renumber(predictor.card)
    for note in ids.notes:
        typer.echo(f"note: {note}", err=True)
    return Asked(numbered, by_annotations=True)


def open_outputs(
    predictor: Predictor,
    asked: Asked,
    files: Mapping[str, Path],
    draw: Path | None,
    limits: Mapping[str, Any],
    sources: Sources,
) -> Outputs:
    """Open all files and folders; nothing is predicted if one of them cannot be written."""
    from resnest.files import OUTPUT_MARK
    from resnest.runtime.outputs import OutputFolder
    from resnest.runtime.results import ALL, Show
    from resnest.tasks import load_object

    card, shown = predictor.card, replace(ALL, **limits)
    opened = {name: load_object(card.info.files[name]).open(path, card, shown, asked) for name, path in files.items()}
    drawings = OutputFolder(draw, ".jpg", asked.paths) if draw else None
    if drawings:
        drawings.check(sources.drawn_as_pictures(asked, drawings.folder), OUTPUT_MARK)
    return Outputs(opened, drawings, Show(**limits))


def run(predictor: Predictor, pictures: list[Placed], printer: Printer, outputs: Outputs, sources: Sources) -> int:
    """Predict all pictures and sources; returns how many images are unusable."""
    from resnest.progress import Progress
    from resnest.runtime.decode import BadImage

    bad = 0
    with Progress("predicting:", rate="images", lines=False) as bar:
        bar.start(len(pictures))
        for is_source, group in groupby(pictures, sources.has):
            if is_source:
                bad += sum(sources.predict(source, predictor, printer, outputs, bar) for source in group)
                continue
            plain = list(group)
            for picture, result in zip(plain, predictor.stream([one.path for one in plain]), strict=True):
                bar.advance()
                if isinstance(result, BadImage):
                    bad += 1
                    typer.echo(f"skipped: {result}", err=True)
                    continue
                printer.write(result, outputs.add(result, picture))
    for line in outputs.close():
        typer.echo(line, err=True)
    return bad


PATHS_HELP = (
    "Images, TIFF and video files, cameras (camera:0), addresses of streams (rtsp://, http://), folders, globs such as"
    " 'photos/**/*.jpg', lists (.txt with a name a line, .csv), or - for a list on standard input."
)
ENGINE_HELP = "auto, torch, onnxruntime or openvino; auto prefers a run's exported file, and prints the engine."
THRESHOLD_HELP = "Lowest score of a detection; by default 0.5."
COCO_HELP = "Write all detections (or those above --threshold) as COCO json."
MASKS_HELP = "Write a segmenter's PNGs of class ids and class list here; for panoptic models, COCO's PNGs and json."
ANNOTATIONS_HELP = (
    "COCO json of these pictures, whose ids of pictures and classes the output gets; --coco is then a list of results."
)
DRAW_HELP = "Write the pictures with predictions drawn here, and of a video an .mp4."
EVERY_HELP = (
    "Frames of a video: 10 for every tenth, 0.5s for one each half second; by default all, and no videos of folders."
)
CARD_HELP = "config.json, or its directory, of an exported file without class names."


def predict(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    paths: Annotated[list[str], typer.Argument(help=PATHS_HELP)],
    top: Annotated[
        int | None, typer.Option(min=1, help="Labels to show per image; by default 1, if multi-label those of 50 %.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line; scores are fractions.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV with one row per label, object or segment.")] = False,
    draw: Annotated[Path | None, typer.Option(metavar="DIR", help=DRAW_HELP)] = None,
    every: Annotated[str | None, typer.Option(metavar="FRAMES|SECONDS", help=EVERY_HELP)] = None,
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help=THRESHOLD_HELP)] = None,
    coco: Annotated[Path | None, typer.Option(metavar="FILE", help=COCO_HELP)] = None,
    masks: Annotated[Path | None, typer.Option(metavar="DIR", help=MASKS_HELP)] = None,
    annotations: Annotated[Path | None, typer.Option(metavar="FILE", help=ANNOTATIONS_HELP)] = None,
    window: Annotated[int | None, typer.Option(metavar="PIXELS", help=WINDOW_HELP)] = None,
    network: Annotated[str | None, typer.Option("--model", metavar="NAME", help=NETWORK_HELP)] = None,
    engine: Annotated[str, typer.Option(help=ENGINE_HELP)] = "auto",
    card: Annotated[str | None, typer.Option(metavar="FILE", help=CARD_HELP)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
) -> None:
    """Predict pictures: labels, objects, masks, or panoptic segments.

    Output folders keep the folders of the pictures. Unusable files are named on standard error and the others go on;
    exit code 2 then.
    """
    if as_json and as_csv:
        raise ResnestError("--json and --csv exclude each other")
    sources = Sources.every(every)
    pictures, unusable = collect(paths, sources)
    sources.find(pictures, annotations)
    from resnest.inference.predicting import Predictor
    from resnest.runtime.results import Asked
    from resnest.tasks import load_object

    size = batch_size if sources.found else max(1, min(batch_size, len(pictures)))
    predictor = Predictor(
        model, engine=engine, network=network, device=device, batch_size=size, card=card, window=window
    )
    limits, files = set_options(top=top, threshold=threshold), set_options(coco=coco, masks=masks)
    check_options(predictor.card.task, [*limits, *files])
    asked = use_annotations(annotations, predictor, pictures, files) if annotations else Asked(pictures)
    outputs = open_outputs(predictor, asked, files, draw, limits, sources)
    typer.echo(f"engine: {predictor.engine.name}{f' ({predictor.note})' if predictor.note else ''}", err=True)
    form = "json" if as_json else "csv" if as_csv else "text"
    printer = Printer(form, load_object(predictor.card.info.result), outputs.show, sources.columns)
    bad = run(predictor, list(asked.pictures), printer, outputs, sources) + unusable
    if sources.interrupted:
        raise KeyboardInterrupt
    if bad:
        raise ResnestError(f"{bad} of {len(asked.pictures) + unusable + sources.more} images could not be used")
