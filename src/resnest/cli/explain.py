"""`resnest explain`: what a model looked at, as pictures, JSON, or a page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resnest.cli.pictures import collect
from resnest.cli.sources import Sources
from resnest.cli.words import NETWORK_HELP
from resnest.errors import ResnestError, printable

if TYPE_CHECKING:
    from resnest.explanation.result import Explanation
    from resnest.runtime.outputs import OutputFolder, Placed

MODEL_HELP = "Name of published weights, run directory, checkpoint file, or hub id (user/name); no exported file."
PATHS_HELP = "Images, folders, globs such as 'photos/**/*.jpg', lists (.txt with a name a line, .csv)."
CLASS_HELP = "A class to explain in place of those that the model predicts; may be given several times."
TOP_HELP = "Classes, objects or points of a picture to explain at most."
METHOD_HELP = "exact, grad-cam or hires-cam; by default exact where the network has a linear head, else hires-cam."
LAYER_HELP = "Stages whose maps are explained: layer1 to layer4, several with commas; by default the task's."
DATA_HELP = "Folder or data set whose average the split attention of each picture is compared with."
SAMPLE_HELP = "Pictures of --data that are averaged, at most."
CHECK_HELP = "Measure by deletion and insertion whether each map is better than random ones."
HTML_HELP = "Write a page with everything; without --draw and --json, explain.html."
PAGE = Path("explain.html")
MOST = 200  # pictures of a page: each takes some 200 kB


def explain(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    paths: Annotated[list[str], typer.Argument(help=PATHS_HELP)],
    html: Annotated[Path | None, typer.Option(metavar="FILE", help=HTML_HELP)] = None,
    draw: Annotated[Path | None, typer.Option(metavar="DIR", help="Write a PNG for each picture here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per picture, with maps.")] = False,
    classes: Annotated[list[str] | None, typer.Option("--class", metavar="NAME", help=CLASS_HELP)] = None,
    top: Annotated[int | None, typer.Option(min=1, help=TOP_HELP)] = None,
    method: Annotated[str | None, typer.Option(help=METHOD_HELP)] = None,
    layers: Annotated[str | None, typer.Option(metavar="STAGES", help=LAYER_HELP)] = None,
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    sample: Annotated[int, typer.Option(min=2, help=SAMPLE_HELP)] = 64,
    check: Annotated[bool, typer.Option("--check", help=CHECK_HELP)] = False,
    network: Annotated[str | None, typer.Option("--model", metavar="NAME", help=NETWORK_HELP)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Explain what a model looked at: class-activation maps, and the splits that each block used.

    Unusable pictures are named on standard error and the others go on; exit code 2 then.
    """
    page = PAGE if not (html or draw or as_json) else html
    pictures, bad = collect(paths, Sources.every(None))
    _check_outputs(page, len(pictures))
    drawings = _open_drawings(draw, pictures)
    from resnest.explanation.explaining import Explainer

    explainer = Explainer(
        model,
        classes=classes or (),
        top=top,
        method=method,
        layers=layers.split(",") if layers else (),
        check=check,
        network=network,
        device=device,
    )
    if data is not None:
        explainer.learn_average(data, sample)
    kept = []
    for picture, explanation in _explained(explainer, pictures):
        if explanation is None:
            bad += 1
            continue
        typer.echo(json.dumps(explanation.to_dict()) if as_json else printable(_text(explanation)))
        if drawings:
            with drawings.writing(picture) as path:
                explanation.save(path)
        if page:
            kept.append(explanation)
    if page and kept:
        _write_page(page, kept, model, quiet=as_json)
    if bad:
        raise typer.Exit(2)


def _check_outputs(page: Path | None, count: int) -> None:
    from resnest.files import check_replaceable

    if page is None:
        return
    check_replaceable(page)
    if count > MOST:
        raise ResnestError(f"--html is for {MOST} pictures or fewer, and there are {count}: take --draw or --json")


def _open_drawings(folder: Path | None, pictures: list[Placed]) -> OutputFolder | None:
    from resnest.files import OUTPUT_MARK
    from resnest.runtime.outputs import OutputFolder

    if folder is None:
        return None
    drawings = OutputFolder(folder, ".png", [picture.path for picture in pictures])
    drawings.check(pictures, OUTPUT_MARK)
    return drawings


def _explained(explainer: Any, pictures: list[Placed]) -> Iterator[tuple[Placed, Explanation | None]]:
    """Each picture with its explanation; None of an unusable one, which is said."""
    from resnest.progress import Progress
    from resnest.runtime.decode import BadImage

    with Progress("explaining:", rate="images", lines=False) as bar:
        bar.start(len(pictures))
        for picture in pictures:
            try:
                explanation = explainer(picture.path)
            except BadImage as error:
                typer.echo(f"skipped: {error}", err=True)
                explanation = None
            bar.advance()
            yield picture, explanation


def _text(explanation: Explanation) -> str:
    """The line of a picture, and a line for each check and note."""
    lines = [explanation.text()]
    for target in explanation.targets:
        if target.check is not None:
            areas, verdict = target.check.areas, "better than" if target.check.better else "NOT better than"
            both = ", ".join(
                f"{name} {areas[name]:.3f} ({areas[f'random_{name}']:.3f})" for name in areas if "_" not in name
            )
            lines.append(f"  {target.label}: {verdict} random maps: {both}")
    return "; ".join([*lines, *explanation.notes])


def _write_page(page: Path, kept: list[Explanation], model: str, *, quiet: bool) -> None:
    from resnest.explanation.page import write_explanations
    from resnest.files import write_errors

    with write_errors(page):
        write_explanations(page, kept, title=Path(model).name or model)
    typer.echo(f"page: {page}", err=quiet)
