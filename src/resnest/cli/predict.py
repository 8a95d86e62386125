"""`resnest predict`: labels or objects of files, folders and globs; as text, JSON, CSV, or drawn into the pictures."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from resnest.cli.objects import CocoFile, ObjectWriter
from resnest.cli.words import MODEL_HELP, NETWORK_HELP
from resnest.errors import ResnestError

if TYPE_CHECKING:
    from PIL import Image

    from resnest.runtime.detections import Detections
    from resnest.runtime.results import Classification

ENGINE_HELP = "auto, torch, onnxruntime or openvino; auto takes an exported file where there is one, and says which."
THRESHOLD_HELP = "Of a detector: the lowest score that is shown; 0.5."
COCO_HELP = "Of a detector: write all that it keeps (or --threshold) as COCO json."
CARD_HELP = "config.json, or its directory, of an exported file that does not name its classes."


def predict(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    paths: Annotated[list[str], typer.Argument(help="Images, folders, or globs such as 'photos/**/*.jpg'.")],
    top: Annotated[
        int | None, typer.Option(min=1, help="Labels to show per image: 1, or of several those of 50 %.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line; scores are fractions.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV with one row per label, or object.")] = False,
    draw: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the pictures with their labels here.")] = None,
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help=THRESHOLD_HELP)] = None,
    coco: Annotated[Path | None, typer.Option(metavar="FILE", help=COCO_HELP)] = None,
    network: Annotated[str | None, typer.Option("--model", metavar="NAME", help=NETWORK_HELP)] = None,
    engine: Annotated[str, typer.Option(help=ENGINE_HELP)] = "auto",
    card: Annotated[str | None, typer.Option(metavar="FILE", help=CARD_HELP)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
) -> None:
    """Say what is in pictures: labels, or of a detector boxes and masks.

    Unusable files are named on standard error and the others go on; exit code 2 then.
    """
    if as_json and as_csv:
        raise ResnestError("--json and --csv exclude each other")
    images = list(_expand(paths))
    from resnest.cli.bars import counting
    from resnest.inference.predicting import Predictor
    from resnest.runtime.decode import BadImage
    from resnest.runtime.results import THRESHOLD

    size = max(1, min(batch_size, len(images)))
    predictor = Predictor(model, engine=engine, network=network, device=device, batch_size=size, card=card)
    typer.echo(f"engine: {predictor.engine.name}{f' ({predictor.note})' if predictor.note else ''}", err=True)
    form = "json" if as_json else "csv" if as_csv else "text"
    detects = predictor.card.detector is not None
    _check_options(detects, top=top, threshold=threshold, coco=coco)
    lowest = THRESHOLD if threshold is None else threshold
    shown = ObjectWriter(form, lowest) if detects else _Writer(form, top)
    kept = CocoFile(coco, threshold or 0.0) if coco else None
    drawn = _Drawings(draw) if draw else None
    bad = 0
    with counting("predicting") as bar:
        bar.start(len(images))
        for result in predictor.stream(images):
            bar.advance()
            if isinstance(result, BadImage):
                bad += 1
                typer.echo(f"skipped: {result}", err=True)
                continue
            shown.write(result)  # type: ignore[arg-type]
            if kept:
                kept.add(cast("Detections", result))
            if drawn:
                drawn.draw(result, top, lowest)
    if kept:
        kept.close()
        typer.echo(f"{len(kept.annotations)} objects of {len(kept.images)} pictures in {coco}", err=True)
    if drawn:
        typer.echo(f"{drawn.count} pictures in {draw}", err=True)
    if bad:
        raise ResnestError(f"{bad} of {len(images)} images could not be used")


def _check_options(detects: bool, **given: object) -> None:
    """Raises ResnestError for an option that is for the other kind of model."""
    for name, value in given.items():
        if value is not None and (name == "top") == detects:
            kind, other = ("detector", "classifiers") if detects else ("classifier", "detectors")
            raise ResnestError(f"--{name} is for {other}, and this model is a {kind}: leave it out")


def _expand(paths: list[str]) -> Iterator[Path]:
    """Files in the order given; a folder's images in sorted order, subfolders included."""
    from resnest.runtime.decode import SUFFIXES

    for text in paths:
        path = Path(text)
        if path.is_dir():
            found = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in SUFFIXES and file.is_file()]
            if not found:
                raise ResnestError(f"no images in {path} (looked for {', '.join(SUFFIXES)})")
        elif has_magic(text) and not path.exists():
            found = [Path(match) for match in sorted(glob(text, recursive=True)) if Path(match).is_file()]
            if not found:
                raise ResnestError(f"no file matches {text}")
        else:
            found = [path]
        yield from found


class _Writer:
    """Results on standard output."""

    def __init__(self, form: str, top: int | None) -> None:
        self.form = form
        self.top = top
        self.table = csv.writer(sys.stdout)
        if form == "csv":
            self.table.writerow(["image", "rank", "label", "score"])

    def write(self, result: Classification) -> None:
        if self.form == "json":
            typer.echo(json.dumps(result.to_dict(self.top or 1), ensure_ascii=False))
        elif self.form == "csv":
            for rank, (label, score) in enumerate(result.shown(self.top), start=1):
                self.table.writerow([result.name, rank, label, f"{score:.6f}"])
            if not result.shown(self.top):
                self.table.writerow([result.name, "", "", ""])
        else:
            ranking = "  ".join(f"{label} {score:.1%}" for label, score in result.shown(self.top))
            typer.echo(f"{result.name}: {ranking or '-'}")


class _Drawings:
    """Pictures with their labels or objects, one file each, never two under one name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: set[str] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResnestError(f"--draw {folder}: cannot be written: {error.strerror or error}") from None

    @property
    def count(self) -> int:
        return len(self.names)

    def draw(self, result: Classification | Detections, top: int | None, threshold: float) -> None:
        from resnest.runtime.decode import decode_image

        stem, number = Path(result.name).stem, 1
        name = f"{stem}.jpg"
        while name in self.names:
            number += 1
            name = f"{stem}-{number}.jpg"
        self.names.add(name)
        try:
            picture = _drawn(decode_image(Path(result.name)), result, top, threshold)
            picture.save(self.folder / name, quality=90)
        except OSError as error:
            raise ResnestError(f"{self.folder / name} cannot be written: {error.strerror or error}") from None


def _drawn(image: Image.Image, result: Classification | Detections, top: int | None, threshold: float) -> Image.Image:
    from resnest.runtime.detections import Detections
    from resnest.runtime.draw import draw_labels
    from resnest.runtime.draw_detections import draw_detections

    if isinstance(result, Detections):
        return draw_detections(image, result.shown(threshold))
    return draw_labels(image, result.shown(top))
