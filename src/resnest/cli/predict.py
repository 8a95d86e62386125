"""`resnest predict`: predictions for files, folders, globs and lists, as text, JSON, CSV, masks, or drawings."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resnest.cli.pictures import collect
from resnest.cli.predict_job import JobOptions, run_job
from resnest.cli.sources import Sources
from resnest.cli.task_options import (
    check_options,
    predict_by_threshold,
    read_boxes,
    read_tiles,
    refuse,
    set_options,
)
from resnest.cli.words import MODEL_HELP, NETWORK_HELP, OVERLAP_HELP, TILE_HELP, WINDOW_HELP
from resnest.errors import ResnestError, parameter, printable
from resnest.figures import counted

if TYPE_CHECKING:
    from resnest.inference.predicting import Predictor
    from resnest.progress import Progress
    from resnest.runtime.inputs import ImageInput
    from resnest.runtime.outputs import OutputFolder, Placed
    from resnest.runtime.regions import Regions
    from resnest.runtime.results import Asked, Result, ResultFiles, Show


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

    def __init__(
        self, files: Mapping[str, ResultFiles], drawings: OutputFolder | None, show: Show, bands: Sequence[int] = ()
    ) -> None:
        self.files, self.drawings, self.show, self.bands = files, drawings, show, bands
        self.done: dict[Path, dict[str, str]] = {}

    def add(self, result: Result, picture: Placed) -> dict[str, str]:
        """The picture's own files by option. A picture that comes again is not written again."""
        if picture.path in self.done:
            return self.done[picture.path]
        told = self.write(result, picture, picture.path)
        if self.files or self.drawings:
            self.done[picture.path] = told
        return told

    def write(self, result: Result, picture: Placed, image: ImageInput | Regions | None) -> dict[str, str]:
        """The files of a result; `image` is drawn into, if any."""
        written = {name: files.add(result, picture) for name, files in self.files.items()}
        if self.drawings and image is not None:
            with self.drawings.writing(picture) as path:
                result.save(path, image, self.show, self.bands)
            written["draw"] = path
        return {name: str(path) for name, path in written.items() if path}

    def close(self) -> list[str]:
        """Write what is left; returns a summary."""
        summary = [files.close() for files in self.files.values()]
        drawn = (
            [f"{counted(len(self.drawings.written), 'picture', 'pictures')} in {self.drawings}"]
            if self.drawings and self.drawings.written
            else []
        )
        return summary + drawn


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
    bands: Sequence[int] = (),
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
    return Outputs(opened, drawings, Show(**limits), bands)


def read_bands(text: str | None) -> tuple[int, ...]:
    """ "3,2,1" -> (3, 2, 1). Raises ResnestError."""
    if text is None:
        return ()
    if not re.fullmatch(r"\d{1,4}(,\d{1,4},\d{1,4})?", text):
        raise ResnestError(f"{parameter('bands', text)}: expected one band or three, such as 3,2,1")
    return tuple(map(int, text.split(",")))


def count_tiles(predictor: Predictor, bar: Progress) -> Callable[[], None]:
    """Let the bar count tiles; returns what is called when a picture is finished, which itself counts no longer then.

    How many tiles a picture has is known once it is open.
    """
    left = 0

    def on_tile(done: int, of: int) -> None:
        nonlocal left
        if done == 0:
            bar.grow(of - left)  # of a page before that was damaged
        else:
            bar.advance(left - (of - done))
        left = of - done

    def finished() -> None:
        nonlocal left
        bar.grow(-1 - left)
        left = 0

    predictor.on_tile = on_tile
    return finished


def run(predictor: Predictor, pictures: list[Placed], printer: Printer, outputs: Outputs, sources: Sources) -> int:
    """Predict all pictures and sources; returns how many images are unusable."""
    from resnest.progress import Progress
    from resnest.runtime.decode import BadImage

    bad = 0
    with Progress("predicting:", rate="tiles" if predictor.tiles else "images", lines=False) as bar:
        bar.start(len(pictures))
        finished = count_tiles(predictor, bar) if predictor.tiles else bar.advance
        for is_source, group in groupby(pictures, sources.has):
            if is_source:
                for source in group:
                    bad += sources.predict(source, predictor, printer, outputs)
                    finished()
                continue
            plain = list(group)
            for picture, result in zip(plain, predictor.stream([one.path for one in plain]), strict=True):
                finished()
                if isinstance(result, BadImage):
                    bad += 1
                    typer.echo(f"skipped: {result}", err=True)
                    continue
                printer.write(result, outputs.add(result, picture))
    for line in outputs.close():
        typer.echo(line, err=True)
    return bad


JSON_HELP = "One JSON object per line; scores are fractions. With --out: one object, what the job did."
OUT_HELP = (
    "Write all results into this .parquet, .jsonl or .csv, as a batch job: of any number of pictures, also in .tar"
    " files; a job that ends early goes on with the same command."
)
SHARD_HELP = "With --out: the i-th of n equal parts of the pictures, in a file of its own."
RAY_HELP = "With --out: on all machines of a Ray cluster (RAY_ADDRESS), or all cores of this one."
OVERWRITE_HELP = "With --out: begin anew what another job has begun or finished there."
PART_HELP = "With --out: pictures of a part, which is what a killed job repeats at most."
PATHS_HELP = (
    "Images, TIFF and video files, cameras (camera:0), addresses of streams (rtsp://, http://), folders, globs such as"
    " 'photos/**/*.jpg', lists (.txt with a name a line, .csv), or - for a list on standard input."
)
BOXES_HELP = (
    "Of a keypoint model: a detector (DETECTOR@CLASS for one of its classes), or COCO json of detections, whose boxes"
    " are looked at."
)
ENGINE_HELP = "auto, torch, onnxruntime or openvino; auto prefers a run's exported file, and prints the engine."
THRESHOLD_HELP = (
    "Lowest score of a detection, by default 0.5; of multi-label masks the probability from which on a pixel is in one,"
    " by default the model's."
)
COCO_HELP = "Write all detections (or those above --threshold) as COCO json."
MASKS_HELP = (
    "Write a segmenter's PNGs of class ids and class list here, of multi-label masks a folder for each class; for"
    " panoptic models, COCO's PNGs and json."
)
ANNOTATIONS_HELP = (
    "COCO json of these pictures, whose ids of pictures and classes the output gets; --coco is then a list of results."
)
DRAW_HELP = "Write the pictures with predictions drawn here, and of a video an .mp4."
BANDS_HELP = "Bands of a picture that drawings show as red, green and blue, such as 3,2,1; one is grey."
EVERY_HELP = (
    "Frames of a video: 10 for every tenth, 0.5s for one each half second; by default all, and no videos of folders."
)
CARD_HELP = "config.json, or its directory, of an exported file without class names."


NO_JOB = "--{} is for a batch job: name its results with --out"


def predict(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    paths: Annotated[list[str], typer.Argument(help=PATHS_HELP)],
    top: Annotated[
        int | None, typer.Option(min=1, help="Labels to show per image; by default 1, if multi-label those of 50 %.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV with one row per label, object or segment.")] = False,
    draw: Annotated[Path | None, typer.Option(metavar="DIR", help=DRAW_HELP)] = None,
    bands: Annotated[str | None, typer.Option(metavar="R,G,B", help=BANDS_HELP)] = None,
    every: Annotated[str | None, typer.Option(metavar="FRAMES|SECONDS", help=EVERY_HELP)] = None,
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help=THRESHOLD_HELP)] = None,
    coco: Annotated[Path | None, typer.Option(metavar="FILE", help=COCO_HELP)] = None,
    masks: Annotated[Path | None, typer.Option(metavar="DIR", help=MASKS_HELP)] = None,
    annotations: Annotated[Path | None, typer.Option(metavar="FILE", help=ANNOTATIONS_HELP)] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help=OUT_HELP)] = None,
    shard: Annotated[str | None, typer.Option(metavar="I/N", help=SHARD_HELP)] = None,
    ray: Annotated[bool, typer.Option("--ray", help=RAY_HELP)] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE_HELP)] = False,
    part_size: Annotated[int, typer.Option(min=1, help=PART_HELP)] = 1000,
    boxes: Annotated[str | None, typer.Option(metavar="MODEL|FILE", help=BOXES_HELP)] = None,
    tile: Annotated[int | None, typer.Option(metavar="PIXELS", help=TILE_HELP)] = None,
    overlap: Annotated[float | None, typer.Option(metavar="FRACTION", help=OVERLAP_HELP)] = None,
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
    limits, files = set_options(top=top, threshold=threshold), set_options(coco=coco, masks=masks)
    opening: dict[str, Any] = {"engine": engine, "network": network, "device": device, "card": card}
    opening |= {"window": window, "tiles": read_tiles(tile, overlap)}
    if out:
        others = {"csv": as_csv, "draw": draw, "annotations": annotations, "every": every, "bands": bands, **files}
        refuse(others, "--out writes rows alone: leave out --{}")
        options = JobOptions(out, shard, ray, overwrite, part_size, as_json)
        return run_job(model, paths, options, {**opening, "batch_size": batch_size}, limits, boxes=boxes)
    refuse({"shard": shard, "ray": ray, "overwrite": overwrite}, NO_JOB)
    sources = Sources.every(every)
    pictures, unusable = collect(paths, sources)
    sources.find(pictures, annotations)
    predictor = _open(model, opening, batch_size, len(pictures), sources)
    predict_by_threshold(predictor, limits)
    check_options(predictor.card.task, [*limits, *files])
    predictor = read_boxes(predictor, boxes, device)
    from resnest.runtime.results import Asked

    asked = use_annotations(annotations, predictor, pictures, files) if annotations else Asked(pictures)
    outputs = open_outputs(predictor, asked, files, draw, limits, sources, read_bands(bands))
    form = "json" if as_json else "csv" if as_csv else "text"
    _print_all(predictor, asked, outputs, sources, form, unusable)


def _open(model: str, opening: Mapping[str, Any], batch_size: int, pictures: int, sources: Sources) -> Predictor:
    """The predictor, with batches no larger than needed."""
    from resnest.inference.predicting import Predictor

    several = sources.found or opening["tiles"]
    predictor = Predictor(model, batch_size=batch_size if several else max(1, min(batch_size, pictures)), **opening)
    sources.read_as(predictor.card.bands)
    return predictor


def _print_all(
    predictor: Predictor, asked: Asked, outputs: Outputs, sources: Sources, form: str, unusable: int
) -> None:
    """Predict, print and write. Raises ResnestError at the end if pictures are unusable, lists of them among these."""
    from resnest.tasks import load_object

    typer.echo(f"engine: {predictor.engine.name}{f' ({predictor.note})' if predictor.note else ''}", err=True)
    printer = Printer(form, load_object(predictor.card.info.result), outputs.show, sources.columns)
    bad = run(predictor, list(asked.pictures), printer, outputs, sources) + unusable
    if sources.interrupted:
        raise KeyboardInterrupt
    if bad:
        raise ResnestError(f"{bad} of {len(asked.pictures) + unusable + sources.more} images could not be used")
